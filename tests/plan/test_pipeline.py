"""Pipelines in plans: what is refused and why, that the advice works, and what uneven stages take."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from aiftrain.errors import ConfigError
from aiftrain.plan.engine_traits import OURS
from aiftrain.plan.groups import Groups
from aiftrain.plan.memory import states_of
from aiftrain.plan.memory_use import memory_use
from aiftrain.plan.plan import LaunchPlan, make_plan
from aiftrain.plan.spec import resolve
from aiftrain.plan.throughput.step import step_time
from aiftrain.run.model import ModelSpec
from aiftrain.run.stages import stage_bounds
from tests.plan.throughput.settings import MODEL, setting

SMOKE = ["recipe=smoke", "parallelism=pp", "launcher.ranks_per_node=4", "train.global_batch=64", "train.micro_batch=1"]


def plan(*overrides: str) -> LaunchPlan:
    return make_plan(resolve([*SMOKE, *overrides]))


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as refused:
        plan(*overrides)
    return str(refused.value)


def test_every_stage_needs_a_layer() -> None:
    few = "model.num_layers=3"
    said = refusal(few, "parallelism.pipeline=4")
    assert "4 stages, but the model has 3 layers" in said and "parallelism.pipeline=3 or less" in said
    assert plan(few, "parallelism.pipeline=3", "launcher.ranks_per_node=3").execution.layout.stages == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("stage", "what"), [(2, "exchanges gradients in every pass"), (3, "exchanges weights and gradients")]
)
def test_zero_stages_that_talk_in_every_pass_are_refused(stage: int, what: str) -> None:
    said = refusal(f"parallelism.zero_stage={stage}")
    assert what in said and "parallelism.zero_stage=1, or no pipeline: parallelism=zero" in said
    plan("parallelism.zero_stage=1")
    plan(f"parallelism=zero{stage}")


def test_a_pipeline_that_is_never_full_is_warned_of() -> None:
    assert not any("idle" in warning for warning in plan().warnings)
    (warning,) = (
        w for w in plan("parallelism.pipeline=4", "model.num_layers=4", "train.global_batch=2").warnings if "idle" in w
    )
    assert "4 stages" in warning and "2 micro-batches" in warning and "60%" in warning


def test_auto_leaves_the_pipeline_and_chooses_a_stage_that_goes_with_it() -> None:
    layout = plan("parallelism=auto", "parallelism.pipeline=2").execution.layout
    assert (layout.pipeline_parallel, layout.data_parallel) == (2, 2)
    assert layout.zero_stage in (0, 1) and layout.global_batch == 64


def test_a_stage_holds_its_own_layers_states() -> None:
    whole, halves = (
        states_of(resolve([*SMOKE, "parallelism.zero_stage=0", f"parallelism.pipeline={n}"]), "fp32") for n in (1, 2)
    )
    assert whole.total / 2 <= halves.total < whole.total
    model = resolve(SMOKE).model
    assert whole.total == 16 * model.parameters


def test_time_and_memory_are_of_the_stages_as_they_were_cut() -> None:
    """Seven layers on two stages go at the pace of the longer one; the first holds most in flight."""
    model = MODEL.model_copy(update={"num_layers": 7, "vocab_size": 256})
    seconds, memory = {}, {}
    for bounds in [(0, 4, 7), (0, 3, 7), (0, 1, 7), ()]:
        run = setting(model, pipeline_parallel=2, data_parallel=2, stages=bounds)
        seconds[bounds] = step_time(run).compute
        use = memory_use(model, run.layout, sequence_length=2048, precision="bf16", traits=OURS)
        memory[bounds] = use.activations
    assert seconds[0, 1, 7] == pytest.approx(6 / 4 * seconds[0, 4, 7], rel=0.02)
    assert seconds[0, 4, 7] == pytest.approx(seconds[0, 3, 7], rel=0.02) == pytest.approx(seconds[()], rel=0.02)
    assert memory[0, 3, 7] < memory[0, 4, 7] == memory[()]


def test_the_output_projection_makes_the_last_stage_the_slowest() -> None:
    model = MODEL.model_copy(update={"num_layers": 8, "vocab_size": 500_000})
    even, better = (
        setting(model, pipeline_parallel=2, data_parallel=2, stages=bounds)
        for bounds in ((0, 4, 8), stage_bounds(model, 2, 2048))
    )
    assert better.layout.stages[1] > 4
    assert step_time(better).compute < 0.9 * step_time(even).compute


def test_a_cut_for_short_sequences_serves_long_ones_too_and_not_the_other_way_round() -> None:
    """Which is why a run whose later stages have longer sequences is cut for those that it begins with."""
    short, long, for_long, for_short = 4096, 32_768, [], []
    groups = Groups()
    for name in (name for name in groups.choices("model") if name.startswith("eu-")):
        model = ModelSpec.model_validate(groups.read("model", name))
        for stages in (2, 4, 8, 16):
            if stages <= model.num_layers:
                by_short, by_long = (stage_bounds(model, stages, length) for length in (short, long))
                for_long.append(dearest(model, by_short, long) / dearest(model, by_long, long) - 1)
                for_short.append(dearest(model, by_long, short) / dearest(model, by_short, short) - 1)
    assert max(for_long) < 0.06
    assert 0.2 < max(for_short) < 0.23


def dearest(model: ModelSpec, bounds: Sequence[int], length: int) -> float:
    """FLOPs a token of the stage that has most of them."""
    layers = [model.layer_flops_per_token(layer, length) for layer in range(model.num_layers)]
    stages = [sum(layers[start:stop]) for start, stop in pairwise(bounds)]
    return max(*stages[:-1], stages[-1] + model.head_flops_per_token)
