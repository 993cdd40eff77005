"""The verdict on a step: what is a spike, what follows from it, and that trouble never lasts for ever."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aiftrain.checkpoint.history import History, Rollback
from aiftrain.checkpoint.loss_scale import LossScale
from aiftrain.run.guard import GuardSpec
from aiftrain.run.precision import LossScaleSpec
from aiftrain.train.verdict import judge, remember, rescaled


def calm(steps: int = 100, noise: float = 0.03, **changes: Any) -> History:
    """Losses around 2, norms around 0.5."""
    chance = random.Random(0)
    past = History(
        losses=tuple(chance.gauss(2, noise) for _ in range(steps)),
        norms=tuple(chance.gauss(0.5, noise) for _ in range(steps)),
    )
    return past.model_copy(update=changes)


def back(to_step: int = 0) -> Rollback:
    return Rollback(at_step=9, to_step=to_step, start=0, stop=8, trouble="loss_spike", attempt=1, time=0.0)


@pytest.mark.parametrize(
    ("loss", "norm", "trouble"),
    [
        (2.05, 0.55, None),
        (0.1, 0.0, None),  # no harm in that
        (2.5, 0.5, "loss_spike"),
        (2.0, 5.0, "norm_spike"),
        (math.nan, 0.5, "non_finite"),
        (2.0, math.inf, "non_finite"),
        (-math.inf, math.nan, "non_finite"),
    ],
)
def test_what_is_trouble(loss: float, norm: float, trouble: str | None) -> None:
    verdict = judge(GuardSpec(), calm(), loss, norm)
    assert verdict.trouble == trouble
    assert verdict.applies == (trouble is None)


@pytest.mark.parametrize(("loss", "norm"), [(2.0, math.inf), (2.0, math.nan)])
def test_gradients_too_large_for_fp16_are_no_trouble_of_the_run(loss: float, norm: float) -> None:
    past = calm(skips_in_row=2)
    verdict = judge(GuardSpec(skips_in_row=2), past, loss, norm, may_overflow=True)
    assert (verdict.overflows, verdict.applies, verdict.answer) == (True, False, "skip")
    assert remember(GuardSpec(), past, verdict) is past
    settings, scale = LossScaleSpec(), LossScale(factor=8, good_steps=5, patience=1)
    assert rescaled(settings, scale, verdict).factor == 4


def test_a_loss_that_is_no_number_is_trouble_whatever_it_was_scaled_by() -> None:
    verdict = judge(GuardSpec(), calm(), math.nan, math.nan, may_overflow=True)
    assert verdict.trouble == "non_finite"
    scale = LossScale(factor=8, good_steps=5, patience=1)
    assert rescaled(LossScaleSpec(), scale, verdict) == scale
    spike = judge(GuardSpec(), calm(), 2.5, 0.5, may_overflow=True)
    assert rescaled(LossScaleSpec(), scale, spike).good_steps == 6


def test_nothing_is_a_spike_before_enough_steps_but_no_number_is_one_at_once() -> None:
    spec = GuardSpec()
    assert judge(spec, calm(spec.least_steps - 1), 100.0, 100.0).trouble is None
    assert judge(spec, calm(spec.least_steps), 100.0, 0.5).trouble == "loss_spike"
    assert judge(spec, History(), math.nan, 1.0).answer == "skip"


def test_outliers_in_the_window_do_not_hide_others() -> None:
    """As they would a mean and a standard deviation: ten losses of 50 make 6 of those more than 90."""
    past = calm()
    past = past.model_copy(update={"losses": (*past.losses[10:], *[50.0] * 10)})
    assert judge(GuardSpec(), past, 10.0, 0.5).trouble == "loss_spike"


def test_values_that_hardly_differ_do_not_make_every_change_a_spike() -> None:
    past = History(losses=(2.0,) * 100, norms=(0.5,) * 100)
    assert judge(GuardSpec(), past, 2.2, 0.55).trouble is None
    assert judge(GuardSpec(), past, 2.3, 0.55).trouble == "loss_spike"


def test_the_hardest_answer_counts_where_both_are_spikes() -> None:
    verdict = judge(GuardSpec(norm_spike="ignore", loss_spike="stop"), calm(), 9.0, 9.0)
    assert (verdict.trouble, verdict.answer) == ("loss_spike", "stop")
    verdict = judge(GuardSpec(norm_spike="rollback", loss_spike="skip"), calm(), 9.0, 9.0)
    assert (verdict.trouble, verdict.answer) == ("norm_spike", "rollback")


def test_answers_become_harder_when_they_do_not_help() -> None:
    spec = GuardSpec(skips_in_row=2, rollbacks=1)
    assert judge(spec, calm(skips_in_row=1), 9.0, 0.5).answer == "skip"
    assert judge(spec, calm(skips_in_row=2), 9.0, 0.5).answer == "rollback"
    assert judge(spec, calm(skips_in_row=2, rollbacks=(back(),)), 9.0, 0.5).answer == "stop"
    assert judge(spec, calm(rollbacks=(back(),)), 9.0, 0.5).answer == "skip"
    none = GuardSpec(non_finite="rollback", rollbacks=0)
    assert judge(none, calm(), math.nan, 0.5).answer == "stop"


def test_an_ignored_spike_is_learned_from_and_a_skipped_one_is_not() -> None:
    ignoring, past = GuardSpec(loss_spike="ignore"), calm()
    verdict = judge(ignoring, past, 9.0, 0.5)
    assert verdict.applies and verdict.trouble == "loss_spike"
    assert remember(ignoring, past, verdict).losses[-1] == 9.0
    after = remember(GuardSpec(), past, judge(GuardSpec(), past, 9.0, 0.5))
    assert (after.losses, after.skips_in_row, after.skipped) == (past.losses, 1, 1)
    calmed = remember(GuardSpec(), after, judge(GuardSpec(), after, 2.0, 0.5))
    assert (calmed.losses[-1], calmed.skips_in_row, calmed.skipped) == (2.0, 0, 1)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40))
def test_the_window_keeps_the_newest(losses: list[float]) -> None:
    spec, past = GuardSpec(window=8, least_steps=8, loss_spike="ignore", norm_spike="ignore"), History()
    for loss in losses:
        past = remember(spec, past, judge(spec, past, loss, 1.0))
    assert past.losses == tuple(losses[-8:])


def test_what_a_verdict_says() -> None:
    assert str(judge(GuardSpec(), calm(), math.nan, 0.5)) == "loss nan and gradient norm 0.5"
    assert str(judge(GuardSpec(), calm(), 2.0, 7.5)).startswith("gradient norm 7.5, where 0.5 is usual and 0.")
    assert judge(GuardSpec(), calm(), math.inf, 0.5).numbers()["loss"] is None


def test_a_step_that_is_no_number_cannot_be_ignored() -> None:
    with pytest.raises(ValidationError, match="skip"):
        GuardSpec.model_validate({"non_finite": "ignore"})
    with pytest.raises(ValidationError, match="least_steps 64 is more than the 32 steps"):
        GuardSpec(window=32)
