"""The factor of fp16's losses: when it grows and falls."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.checkpoint.loss_scale import LossScale
from aiftrain.run.precision import LossScaleSpec


def after(spec: LossScaleSpec, steps: str) -> LossScale:
    """The scale after steps, `.` for a good one and `x` for an overflow."""
    scale = LossScale.first(spec)
    for step in steps:
        scale = scale.after_good(spec) if step == "." else scale.after_overflow(spec)
    return scale


def test_doubles_after_a_window_of_good_steps_in_a_row() -> None:
    spec = LossScaleSpec(initial=8, window=3, hysteresis=1)
    assert [after(spec, "." * steps).factor for steps in range(7)] == [8, 8, 8, 16, 16, 16, 32]
    assert after(spec, "..x..").factor == 4
    assert after(spec, "..x...").factor == 8


def test_the_first_overflow_is_put_down_to_chance_until_the_factor_has_doubled_again() -> None:
    spec = LossScaleSpec(initial=8, window=3, hysteresis=2)
    assert [after(spec, steps).factor for steps in ("x", "xx", "xxx", "xx..x")] == [8, 4, 2, 2]
    assert after(spec, "xx...x").factor == after(spec, "xx...").factor == 8


def test_never_falls_below_the_minimum_and_knows_when_it_can_do_no_more() -> None:
    spec = LossScaleSpec(initial=4, minimum=1, hysteresis=2)
    assert after(spec, "x" * 10).factor == 1
    assert [after(spec, "x" * steps).can_yield(spec) for steps in (0, 2, 3)] == [True, True, False]
    assert LossScaleSpec(initial=1).minimum == 1 and after(LossScaleSpec(initial=1), "").can_yield(LossScaleSpec())


@given(st.text("..x", max_size=60), st.integers(1, 5))
def test_without_patience_it_is_what_torch_has_for_its_gradient_scaler(steps: str, window: int) -> None:
    spec = LossScaleSpec(initial=2.0**16, window=window, hysteresis=1, minimum=2.0**-60)
    scale, good = torch.tensor(2.0**16), torch.tensor(0, dtype=torch.int32)
    for step in steps:
        torch._amp_update_scale_(scale, good, torch.tensor(float(step == "x")), 2.0, 0.5, window)
    assert after(spec, steps).factor == float(scale)
    assert after(spec, steps).good_steps == int(good)
