"""Stages in the plan: what is wrong with them is said before the queue; memory, time and FLOPs are those of all."""

from __future__ import annotations

import pytest

from aiftrain.errors import ConfigError
from aiftrain.plan.flops import run_flops
from aiftrain.plan.plan import LaunchPlan, make_plan
from aiftrain.plan.spec import resolve

LUMI = ["recipe=eu-llm-7b", "factory=lumi", "parallelism=zero3", "train.recompute=full", "train.tokens=1000000000000"]
LONG = "from_tokens: 900000000000, sequence_length: 32768, rope_theta: 1000000, global_batch: 1024"


def plan(*overrides: str) -> LaunchPlan:
    return make_plan(resolve([*LUMI, *overrides]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["+stages.late={from_step: 100, global_batch: 1024}", "+stages.early={from_step: 99, global_batch: 2048}"],
            "stages.early.from_step: 99, but stages.late begins at 100\n      more than 100",
        ),
        (
            ["+stages.mix={from_tokens: 1000, weights: {eng: 1.0}}"],
            "stages.mix.weights.eng: data.sources has no such source\n      did you mean en?",
        ),
        (["+stages.mix={from_tokens: 1000, weights: {en: 0.0}}"], "stages.mix.weights: every source has weight 0"),
        (
            [f"+stages.long={{{LONG}, micro_batch: 2}}"],
            "stages.long.global_batch: 1024 sequences cannot be shared by 1024 ranks of 2 sequences each\n"
            "      stages.long.global_batch=2048 would fit, or stages.long.micro_batch=1",
        ),
        (
            ["train.batch_warmup={start: 512, increment: 1000, tokens: 1000000}"],
            "train.batch_warmup.increment: 1000 sequences do not lead from 512 to 3072\n      a divisor of 2560",
        ),
        (
            ["train.batch_warmup={start: 512, increment: 512, tokens: 1000000}"],
            "train.batch_warmup.start: 512 sequences are no multiple of the 1024 that all ranks take in one pass\n"
            "      train.batch_warmup.start=1024 would fit",
        ),
        (
            ["train.batch_warmup={start: 4096, increment: 1024, tokens: 1000000}"],
            "train.batch_warmup.start: 4096 sequences leave nothing to grow to",
        ),
        (
            ["model.positions=learned", "model.max_positions=4096", f"+stages.long={{{LONG}}}"],
            "stages.long.sequence_length: 32768 is more than the 4096 of model.max_positions\n      at most 4096",
        ),
        (
            ["parallelism=sp", "parallelism.sequence=4", "+stages.odd={from_step: 9, sequence_length: 4098}"],
            "stages.odd.sequence_length: 4098 cannot be shared out in equal parts by sequence 4\n"
            "      stages.odd.sequence_length=4096 or 4100",
        ),
        (
            ["model.positions=alibi", f"+stages.long={{{LONG}}}"],
            "stages.long.rope_theta: 1e+06, but model.positions=alibi has no rotary base",
        ),
    ],
)
def test_wrong_stages_are_refused_with_what_would_fit(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        plan(*overrides)
    assert message in str(refusal.value)


def test_all_problems_are_shown_at_once() -> None:
    with pytest.raises(ConfigError) as refusal:
        plan("+stages.a={from_step: 5, weights: {x: 1}}", "+stages.b={from_step: 5, weights: {en: 0}}")
    assert len(refusal.value.problems) == 3


def test_a_stage_that_is_not_reached_is_a_warning() -> None:
    assert (
        "the run ends before stages.late begins"
        in plan("+stages.late={from_step: 9999999, global_batch: 1024}").warnings
    )


def test_the_largest_stage_decides_the_memory() -> None:
    short, long = plan(), plan(f"+stages.long={{{LONG}}}")
    longest = plan("train.sequence_length=32768")
    assert long.prediction.memory.total == longest.prediction.memory.total > 1.5 * short.prediction.memory.total


def test_time_and_flops_are_those_of_the_stages_together() -> None:
    """900 billion tokens at 4,096 and 100 billion at 32,768, less than a step of each."""
    long = plan(f"+stages.long={{{LONG}}}")
    at = {length: plan(f"train.sequence_length={length}", "train.global_batch=1024") for length in (4096, 32768)}
    assert long.estimate.tokens == pytest.approx(1e12, rel=1e-4)
    per_token = {length: one.estimate.flops_per_token for length, one in at.items()}
    assert long.estimate.flops == pytest.approx(0.9e12 * per_token[4096] + 0.1e12 * per_token[32768], rel=1e-4)
    rates = [one.prediction.rate for one in (long, plan(), at[32768])]
    whole, first, last = (rate.tokens_per_s for rate in rates if rate)
    assert 1 / whole == pytest.approx(0.9 / first + 0.1 / last, rel=1e-4)
    assert long.prediction.cost is not None
    assert long.prediction.cost.compute.architecture == pytest.approx(long.estimate.flops_6nd + _attention(long))
    assert [stage.name for stage in long.estimate.stages] == [None, "long"]


def _attention(plan: LaunchPlan) -> float:
    spec = resolve([*LUMI, f"+stages.long={{{LONG}}}"])
    return run_flops(spec) - 6.0 * spec.model.active_matmul_parameters * plan.estimate.tokens


def test_auto_takes_only_micro_batches_that_every_stage_can_share() -> None:
    stage = "+stages.odd={from_step: 10, global_batch: 1024}"
    found = make_plan(resolve(["recipe=eu-llm-7b", "factory=lumi", "nodes=64", "parallelism=auto", stage]))
    assert 1024 % (found.execution.layout.micro_batch * 512) == 0
