"""Learning-rate schedules: their ends, their shape, and that they are pure."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.plan.spec import resolve
from aiftrain.run.optimizer import OptimizerSpec
from aiftrain.run.training_stages import StageSpec
from aiftrain.train.schedule import Schedule

BASE = resolve(["recipe=smoke"])


def optimizer(**changes: object) -> OptimizerSpec:
    return OptimizerSpec.model_validate({"name": "adamw", "lr": 1.0, "warmup_steps": 10} | changes)


def rates(spec: OptimizerSpec, total: int, **stages: dict[str, object]) -> list[float]:
    update = {
        "optimizer": spec,
        "train": BASE.train.model_copy(update={"steps": total}),
        "stages": {name: StageSpec.model_validate(stage) for name, stage in stages.items()},
    }
    schedule = Schedule(BASE.model_copy(update=update))
    return [schedule.rate(step) for step in range(total)]


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
def test_warm_up_is_linear_and_reaches_the_top(schedule: str) -> None:
    curve = rates(optimizer(schedule=schedule), 100)
    assert curve[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(curve) == pytest.approx(1.0)


def test_cosine_ends_at_the_floor_and_is_halfway_in_the_middle() -> None:
    curve = rates(optimizer(schedule="cosine", warmup_steps=0, min_lr_ratio=0.1), 101)
    assert curve[50] == pytest.approx(0.55)
    assert curve[-1] == pytest.approx(0.1)


def test_wsd_holds_and_then_decays_over_the_asked_share() -> None:
    curve = rates(optimizer(schedule="wsd", decay_fraction=0.2, min_lr_ratio=0.0), 100)
    assert curve[10:80] == pytest.approx([1.0] * 70)
    assert curve[89] == pytest.approx(0.5)
    assert curve[-1] == pytest.approx(0.0)


@given(
    schedule=st.sampled_from(["cosine", "wsd", "constant"]),
    total=st.integers(1, 300),
    warmup=st.integers(0, 400),
    floor=st.floats(0, 1),
)
def test_rates_are_bounded_and_never_rise_after_warm_up(schedule: str, total: int, warmup: int, floor: float) -> None:
    curve = rates(optimizer(schedule=schedule, warmup_steps=warmup, min_lr_ratio=floor), total)
    assert all(0 <= rate <= 1 + 1e-12 for rate in curve)
    falling = curve[warmup:]
    assert all(b <= a + 1e-12 for a, b in pairwise(falling))


def test_the_decay_of_wsd_may_be_one_less_the_square_root() -> None:
    """Of 25 steps of decay, 9 / 25 are done at step 83: 1 - sqrt(0.36)."""
    curve = rates(optimizer(schedule="wsd", decay_fraction=0.25, decay_shape="1-sqrt", min_lr_ratio=0.0), 100)
    assert curve[10:75] == pytest.approx([1.0] * 65)
    assert curve[83] == pytest.approx(0.4)
    assert curve[-1] == pytest.approx(0.0)


def test_a_stage_warms_up_again_from_where_the_rate_was_and_decays_again() -> None:
    wsd = optimizer(schedule="wsd", decay_fraction=0.2, min_lr_ratio=0.1)
    again = rates(wsd, 180, more={"from_step": 100, "rewarm": 5, "lr": 0.6})
    assert again[:100] == rates(wsd, 100), "the past is what it was"
    assert again[99] == pytest.approx(0.1)
    assert again[100:105] == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6])
    assert again[105:164] == pytest.approx([0.6] * 59)
    assert again[-1] == pytest.approx(0.06)


def test_a_stage_beyond_the_end_changes_no_rate() -> None:
    cosine = optimizer(schedule="cosine")
    assert rates(cosine, 100, late={"from_step": 100, "rewarm": 5}) == rates(cosine, 100)
