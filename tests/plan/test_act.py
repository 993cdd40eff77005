"""Training compute against the worked examples of the EU's guidelines, and the marks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.plan.act import (
    GPAI_MARK,
    TrainingCompute,
    architecture_flops,
    hardware_flops,
    modification_mark,
    position,
    training_compute,
)
from aiftrain.plan.calendar import calendar
from aiftrain.plan.spec import resolve
from aiftrain.run.layout import ParallelLayout, make_layout
from aiftrain.run.spec import RunSpec
from tests.plan.costing import HARDWARE, lasting, layout, run, without


def computed(spec: RunSpec, seconds_per_step: float, *, startup_seconds: float = 60) -> TrainingCompute:
    found = make_layout(spec)
    assert isinstance(found, ParallelLayout)
    days = calendar(
        spec,
        found,
        seconds_per_step=seconds_per_step,
        checkpoint_bytes=12 * spec.model.parameters,
        write_gb_per_s=10,
        startup_seconds=startup_seconds,
        failures_per_node_day=0,
    )
    return training_compute(spec, found, days)


@pytest.mark.parametrize(
    ("parameters", "tokens", "flops"), [(3.8e9, 3.3e12, 7.5e22), (1.7e9, 36e12, 3.7e23)], ids=["3.8B", "1.7B"]
)
def test_the_guidelines_examples_by_architecture(parameters: float, tokens: float, flops: float) -> None:
    assert architecture_flops(parameters, tokens) == pytest.approx(flops, rel=0.01)


def test_the_guidelines_example_by_hardware() -> None:
    """370,000 hours of an H100 at 989 TFLOP/s and half of its peak."""
    assert hardware_flops(1, 370_000 * 3600, 989e12, 0.5) == pytest.approx(6.5e23, rel=0.02)


def test_modifications_count_from_a_third() -> None:
    assert modification_mark(9e23) == pytest.approx(3e23)
    assert modification_mark(None) == pytest.approx(1e23 / 3)
    assert modification_mark(None, systemic=True) == pytest.approx(1e25 / 3)


@pytest.mark.parametrize(
    ("estimates", "place"),
    [
        ([1.5e23], "above"),
        ([1.4e23], "near"),
        ([1.5e23, 1.2e23], "near"),
        ([0.8e23], "near"),
        ([0.75e23], "below"),
        ([0.5e23, 0.9e23], "near"),
    ],
)
def test_within_thirty_percent_of_a_mark_is_near_it(estimates: list[float], place: str) -> None:
    assert position(GPAI_MARK, estimates) == place


@given(st.floats(1e10, 1e30), st.floats(1e10, 1e30))
def test_no_estimate_is_above_one_mark_and_below_it(one: float, other: float) -> None:
    places = {position(GPAI_MARK, [one]), position(GPAI_MARK, [other])}
    both = position(GPAI_MARK, [one, other])
    assert both in places or places == {"above", "below"}


def test_attention_comes_on_top_of_6_parameters_tokens() -> None:
    """1000 steps of 4 x 32 tokens; causal attention of one layer: 6 x 32 dimensions x 32 tokens of context each."""
    spec = run()
    found = computed(spec, 1.0)
    tokens = 1000 * 4 * 32
    assert found.attention == pytest.approx(6 * 32 * 32 * tokens)
    assert found.architecture == pytest.approx(6 * spec.model.parameters * tokens + found.attention)


def test_of_a_mixture_of_experts_only_the_active_parameters_count() -> None:
    base = run().model.model_dump()
    moe = {"num_experts": 8, "experts_per_token": 2, "expert_intermediate_size": 64}
    spec = run(model=base | {"moe": moe})
    found = computed(spec, 1.0)
    tokens = 1000 * 4 * 32
    assert found.architecture - found.attention == pytest.approx(6 * spec.model.active_parameters * tokens)
    assert spec.model.active_parameters < spec.model.parameters
    assert any("active parameters" in note for note in found.assumptions)


def test_both_methods_agree_when_nearly_all_hours_are_spent_training() -> None:
    spec = resolve(["recipe=eu-llm-7b", "factory=lumi"])
    found = computed(spec, 20.0)
    assert found.hardware == pytest.approx(found.architecture, rel=0.1)
    assert found.methods_disagree is False
    assert (found.gpai, found.systemic) == ("above", "below")
    assert found.utilisation and found.implied_utilisation
    assert found.implied_utilisation == pytest.approx(found.utilisation, rel=0.1)
    assert any("article 53" in warning for warning in found.warnings)
    assert not any("compliant" in text for text in (*found.assumptions, *found.warnings))


def test_hours_lost_to_start_ups_make_the_methods_disagree() -> None:
    spec = resolve(["recipe=eu-llm-7b", "factory=lumi", "time=01:00:00"])
    found = computed(spec, 20.0, startup_seconds=1800)
    assert found.methods_disagree is True
    assert found.implied_utilisation and found.utilisation
    assert found.implied_utilisation < found.utilisation


def test_without_a_peak_there_is_no_count_by_hardware() -> None:
    for spec in (run(hardware=without(HARDWARE, "peak_bf16_tflops")), resolve(["recipe=smoke"])):
        found = training_compute(spec, layout(), lasting(spec))
        assert (found.hardware, found.utilisation, found.methods_disagree) == (None, None, None)
        assert found.unknowns == ("hardware.peak_bf16_tflops",)
        assert found.gpai == "below"
