"""What a plan predicts: it hangs together, says what it does not know, and moves the way that physics does."""

from __future__ import annotations

import pytest

from aiftrain.errors import ConfigError
from aiftrain.plan.layouts import formed, layout_of, legal
from aiftrain.plan.memory import GIB, memory_per_rank
from aiftrain.plan.plan import LaunchPlan, make_plan
from aiftrain.plan.prediction import rate
from aiftrain.plan.room import MARGIN, has_room, memory
from aiftrain.plan.spec import resolve
from aiftrain.run.spec import RunSpec


def run(*overrides: str) -> RunSpec:
    recipe = [] if any(override.startswith("recipe=") for override in overrides) else ["recipe=eu-llm-7b"]
    factory = [] if any(override.startswith("factory=") for override in overrides) else ["factory=lumi"]
    return resolve([*recipe, *factory, *overrides])


def test_the_parts_of_a_step_are_the_whole_and_the_range_holds_the_rate() -> None:
    found = make_plan(run()).prediction.rate
    assert found is not None
    assert sum(found.parts.values()) == pytest.approx(1)
    assert found.low < found.seconds_per_step < found.high
    assert found.tokens_per_s == pytest.approx(run().timeline.phases[0].tokens_per_step / found.seconds_per_step)
    assert found.tokens_per_s_per_device == pytest.approx(found.tokens_per_s / 1024)
    assert found.flop_share is not None
    assert 0.2 < found.flop_share < 0.6, "of the data sheet's peak: what published runs on MI250X come near to"


def test_hardware_without_measured_runs_gets_a_wider_range() -> None:
    lumi, other = make_plan(run()).prediction.rate, make_plan(run("factory=meluxina-ai", "nodes=64")).prediction.rate
    assert lumi is not None
    assert other is None or other.high / other.low > lumi.high / lumi.low


def test_days_follow_from_the_rate_and_their_range_from_its_range() -> None:
    plan = make_plan(run())
    cost, speed = plan.prediction.cost, plan.prediction.rate
    assert cost is not None
    assert speed is not None
    assert plan.prediction.days_low is not None
    assert plan.prediction.days_high is not None
    assert plan.prediction.days_low < cost.calendar.days < plan.prediction.days_high
    assert cost.calendar.productive_days == pytest.approx(plan.estimate.steps * speed.seconds_per_step / 86400)


def test_a_machine_without_figures_has_memory_but_no_rate_and_says_what_is_missing() -> None:
    prediction = make_plan(resolve(["recipe=smoke", "hardware.matmul_bf16_tflops=null"])).prediction
    assert prediction.rate is None
    assert prediction.cost is None
    assert prediction.lacking is not None
    assert "cpu" in prediction.lacking
    assert prediction.memory.total > 0
    assert prediction.fits


def test_a_run_that_finds_no_room_is_told_the_least_change_that_makes_it() -> None:
    prediction = make_plan(run("train.micro_batch=3")).prediction
    assert prediction.fits is False
    assert prediction.room is not None
    assert prediction.room.startswith("train.recompute=selective")
    changed = make_plan(run("train.micro_batch=3", "train.recompute=selective")).prediction
    assert changed.fits
    assert f"{changed.memory.total / GIB:,.1f} GiB" in prediction.room
    assert any("out of memory" in warning for warning in make_plan(run("train.micro_batch=3")).warnings)


def test_recomputation_costs_time_and_saves_memory() -> None:
    spec = run("train.micro_batch=3")
    forms = [formed(spec, 2, 3, mode) for mode in ("none", "selective", "full")]
    seconds = [rate(form, layout_of(form), "bf16").seconds_per_step for form in forms]
    bytes_needed = [memory(form, layout_of(form), "bf16").total for form in forms]
    assert seconds == sorted(seconds)
    assert bytes_needed == sorted(bytes_needed, reverse=True)


def test_every_legal_form_shares_out_the_batch_and_none_comes_twice() -> None:
    forms = [layout_of(form) for form in legal(run())]
    assert {form.global_batch for form in forms} == {3072}
    assert len({form.model_dump_json() for form in forms}) == len(forms) == 2 * 4 * 3, "micro-batches of 1 and 3"


def test_auto_takes_a_layout_that_fits_and_none_that_fits_is_predicted_to_be_faster() -> None:
    spec = run("parallelism=auto")
    assert spec.parallelism.zero_stage is None
    plan = make_plan(spec)
    assert plan.prediction.fits
    best = plan.prediction.rate
    assert best is not None
    for form in legal(spec):
        if has_room(form, memory(form, layout_of(form), "bf16")):
            assert rate(form, layout_of(form), "bf16").seconds_per_step >= best.seconds_per_step * 0.999


def test_auto_on_this_machine_keeps_the_micro_batch_that_was_asked_for() -> None:
    plan = make_plan(resolve(["recipe=smoke", "parallelism=auto"]))
    assert plan.execution.layout.micro_batch == 8


def test_auto_where_nothing_fits_says_so_before_the_queue() -> None:
    with pytest.raises(ConfigError, match="nodes"):
        make_plan(run("recipe=eu-llm-70b", "nodes=1", "parallelism=auto", "train.global_batch=64"))


def test_a_plan_is_the_same_after_json() -> None:
    plan = make_plan(run())
    assert LaunchPlan.model_validate_json(plan.model_dump_json()) == plan


def test_the_margin_is_kept_free() -> None:
    spec = run()
    have = memory_per_rank(spec)
    assert have is not None
    use = memory(spec, layout_of(spec), "bf16")
    nearly = use.model_copy(update={"activations": use.activations + int(have * 0.97) - use.total})
    assert MARGIN < 0.97
    assert has_room(spec, use)
    assert not has_room(spec, nearly)
