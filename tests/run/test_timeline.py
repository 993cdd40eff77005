"""The timeline: what holds at each step, found at once and equal to counting step by step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.plan.spec import resolve
from aiftrain.run.spec import RunSpec
from aiftrain.run.timeline import Timeline
from aiftrain.run.training_stages import BatchWarmup, StageSpec

BASE = resolve(["recipe=smoke"])


def spec(stages: Mapping[str, Mapping[str, object]], warmup: dict[str, int] | None = None, **train: object) -> RunSpec:
    update = {"steps": None, "batch_warmup": warmup and BatchWarmup.model_validate(warmup)} | train
    return BASE.model_copy(
        update={
            "train": BASE.train.model_copy(update=update),
            "stages": {name: StageSpec.model_validate(stage) for name, stage in stages.items()},
        }
    )


def test_a_plain_run_is_one_phase() -> None:
    timeline = spec({}, steps=7, global_batch=8, sequence_length=32).timeline
    assert timeline.total_steps == 7
    assert timeline.total_tokens == 7 * 256
    assert [steps for _, steps in timeline.spans()] == [7]
    assert timeline.samples_before(3) == 24


def test_losses_compare_while_data_and_lengths_stay() -> None:
    stages: dict[str, dict[str, object]] = {"mix": {"from_step": 20, "weights": {"a": 1.0}}}
    stages["long"] = {"from_step": 30, "sequence_length": 64}
    warmup = {"start": 2, "increment": 2, "tokens": 500}
    phases = spec(stages, warmup, steps=40, global_batch=8, sequence_length=32).timeline.phases
    assert [one.compares_with(other) for one, other in pairwise(phases)] == [True, True, True, False, False]


def test_a_token_budget_is_rounded_up_to_a_whole_step() -> None:
    assert spec({}, tokens=1000, global_batch=2, sequence_length=100).timeline.total_steps == 5
    assert spec({}, tokens=1001, global_batch=2, sequence_length=100).timeline.total_steps == 6


def test_stages_change_what_they_say_and_keep_the_rest() -> None:
    stages: dict[str, dict[str, object]] = {
        "mix": {"from_tokens": 1001, "weights": {"python-docs": 1.0}},
        "long": {"from_step": 10, "sequence_length": 400, "rope_theta": 1e6, "global_batch": 1},
    }
    timeline = spec(stages, tokens=3000, global_batch=2, sequence_length=100).timeline
    assert [(p.stage, p.first_step, p.first_token, p.first_sample) for p in timeline.phases] == [
        (None, 0, 0, 0),
        ("mix", 6, 1200, 12),
        ("long", 10, 2000, 20),
    ]
    long = timeline.at(11)
    assert (long.global_batch, long.sequence_length, long.rope_theta) == (1, 400, 1e6)
    assert long.weights == {"python-docs": 1.0}, "the mixture goes on"
    assert timeline.total_steps == 13, "1000 tokens in steps of 400"
    assert timeline.after(10).stage == "mix"
    assert timeline.after(0).stage is None


def test_a_batch_grows_evenly_over_its_tokens() -> None:
    """From 2 to 8 by 2 over 600 tokens: at 200, 400 and 600, in whole steps."""
    warmup = {"start": 2, "increment": 2, "tokens": 600}
    timeline = spec({}, warmup, steps=30, global_batch=8, sequence_length=10).timeline
    assert [(phase.global_batch, phase.first_step) for phase in timeline.phases] == [(2, 0), (4, 10), (6, 15), (8, 19)]
    assert timeline.tokens_before(19) == 200 + 200 + 240


def test_levels_that_one_step_passes_over_are_left_out() -> None:
    timeline = spec(
        {}, {"start": 1, "increment": 1, "tokens": 10}, steps=9, global_batch=8, sequence_length=10
    ).timeline
    assert [phase.global_batch for phase in timeline.phases] == [1, 8]


def test_stages_beyond_the_end_count_for_the_common_length_and_not_for_the_run() -> None:
    long = {"long": {"from_step": 100, "sequence_length": 96}}
    timeline = spec(long, steps=50, global_batch=8, sequence_length=64).timeline
    assert [phase.stage for phase, _ in timeline.spans()] == [None]
    assert timeline.total_tokens == 50 * 512
    assert timeline.common_length == 192


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    sizes = st.integers(1, 6)
    stages: dict[str, dict[str, object]] = {}
    at = 0
    for number in range(draw(st.integers(0, 3))):
        at += draw(st.integers(1, 300))
        begins = draw(st.sampled_from(["from_tokens", "from_step"]))
        stages[f"s{number}"] = {begins: at, "global_batch": draw(sizes), "sequence_length": 1 + draw(sizes)}
    start = draw(sizes)
    warmup = {"start": start, "increment": draw(sizes), "tokens": draw(st.integers(1, 200))}
    train = {"global_batch": start + draw(sizes), "sequence_length": 1 + draw(sizes)}
    length = {draw(st.sampled_from(["steps", "tokens"])): draw(st.integers(1, 400))}
    return spec(stages, draw(st.sampled_from([None, warmup])), **train, **length).timeline


@given(timeline=timelines())
def test_every_step_is_what_counting_gives(timeline: Timeline) -> None:
    samples = tokens = 0
    for step in range(timeline.total_steps):
        phase = timeline.at(step)
        assert (timeline.samples_before(step), timeline.tokens_before(step)) == (samples, tokens)
        assert phase.first_step <= step
        samples += phase.global_batch
        tokens += phase.tokens_per_step
    assert timeline.total_tokens == tokens
    assert sum(steps for _, steps in timeline.spans()) == timeline.total_steps


@given(timeline=timelines())
def test_phases_begin_one_after_another(timeline: Timeline) -> None:
    begins = [phase.first_step for phase in timeline.phases]
    assert begins[0] == 0
    assert begins == sorted(set(begins))


def test_any_step_of_a_long_run_is_reached_at_once() -> None:
    warmup = {"start": 1024, "increment": 1024, "tokens": 10**11}
    run = spec({"long": {"from_tokens": 10**13, "sequence_length": 32768}}, warmup, tokens=15 * 10**12)
    began = time.perf_counter()
    assert run.timeline.tokens_before(run.timeline.total_steps) >= 15 * 10**12
    assert time.perf_counter() - began < 0.1


def test_a_stage_says_where_it_begins_and_what_it_changes() -> None:
    with pytest.raises(ValueError, match="from_tokens or at from_step"):
        StageSpec.model_validate({"from_step": 1, "from_tokens": 1, "global_batch": 2})
    with pytest.raises(ValueError, match="a stage changes one of weights, sequence_length"):
        StageSpec.model_validate({"from_step": 1})
