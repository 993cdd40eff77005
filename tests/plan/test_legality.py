"""Layouts that the engine cannot run are refused, each with what would fit."""

from __future__ import annotations

import pytest

from aiftrain.errors import ConfigError
from aiftrain.plan.groups import Groups
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve

SMOKE = ["recipe=smoke", "launcher.ranks_per_node=12", "train.micro_batch=1", "train.global_batch=12"]
LATENT = "+model.latent={kv_rank: 16, nope_dim: 8, rope_dim: 4, value_dim: 8}"
EVEN = "+model.moe={num_experts: 4, experts_per_token: 2, expert_intermediate_size: 32}"
MOE = "+model.moe={num_experts: 4, experts_per_token: 2, expert_intermediate_size: 32, shared_intermediate_size: 9}"


def problems(*overrides: str) -> dict[str, str]:
    """Where -> all that is said."""
    try:
        make_plan(resolve([*SMOKE, *overrides]))
    except ConfigError as error:
        return {problem.where: str(problem) for problem in error.problems}
    return {}


@pytest.mark.parametrize(
    ("overrides", "where", "phrases"),
    [
        (
            ["parallelism=tp", "parallelism.tensor=3", "model.num_heads=4"],
            "model.num_heads",
            [
                "4 cannot be shared out in equal parts by tensor 3",
                "model.num_heads=3 or 6",
                "parallelism.tensor of 1, 2",
            ],
        ),
        (
            ["parallelism=sp", "parallelism.tensor=2", "parallelism.sequence=6"],
            "model.num_heads",
            ["by tensor 2 x sequence 6", "parallelism.tensor x parallelism.sequence of 1, 2, 4"],
        ),
        (["parallelism=tp", "model.num_kv_heads=1"], "model.num_kv_heads", ["1 cannot", "model.num_kv_heads=2, or"]),
        (["parallelism=tp", "model.vocab_size=511"], "model.vocab_size", ["model.vocab_size=510 or 512"]),
        (["parallelism=tp", "model.intermediate_size=95"], "model.intermediate_size", ["=94 or 96"]),
        (["parallelism=tp", MOE], "model.moe.shared_intermediate_size", ["=8 or 10"]),
        (["parallelism=sp", "train.sequence_length=63"], "train.sequence_length", ["=62 or 64", "sequence of 1"]),
        (["parallelism=ep", MOE, "parallelism.expert=3"], "model.moe.num_experts", ["=3 or 6", "expert of 1, 2"]),
        (
            ["parallelism=ep", MOE, "parallelism.expert=4", "parallelism.tensor=2", "model.moe.num_experts=8"],
            "parallelism.expert",
            ["4 is no part of the 6 ranks that share out the batch", "parallelism.expert of 1, 2"],
        ),
        (["parallelism=ep"], "parallelism.expert", ["model smoke has none", "model.moe"]),
        (["parallelism=ep", "parallelism.zero_stage=2"], "parallelism.expert", ["model smoke has none"]),
        (
            ["parallelism=ep", MOE, "parallelism.tensor=2", "parallelism.zero_stage=3"],
            "parallelism.expert",
            ["norm wrong", "parallelism.zero_stage=2, or parallelism.tensor=1"],
        ),
        (
            ["parallelism=ep", "parallelism.pipeline=2", MOE, "+model.moe.dense_layers=3", "model.num_layers=4"],
            "parallelism.expert",
            ["stage 0 of the pipeline has none", "fewer stages"],
        ),
        (["parallelism=mics", MOE, "parallelism.expert=2"], "parallelism.expert", ["no parallelism.shard_group"]),
        (["parallelism=mics", "parallelism.zero_stage=2"], "parallelism.shard_group", ["stage 2", "shard_group=null"]),
        (
            ["parallelism=mics", "parallelism.shard_group=5"],
            "parallelism.shard_group",
            ["5 is no", "of 1, 2, 3, 4, 6, 12"],
        ),
        (
            ["parallelism=mics", "parallelism.tensor=2", "parallelism.shard_group=4"],
            "parallelism.shard_group",
            ["6 ranks"],
        ),
        (
            ["parallelism=hpz", "parallelism.zero_stage=1"],
            "parallelism.secondary_group",
            ["stage 1", "zero_stage=3, or"],
        ),
        (
            ["parallelism=hpz", "parallelism.secondary_group=24"],
            "parallelism.secondary_group",
            ["24 is no part of the 12"],
        ),
        (["parallelism=hpz", "parallelism.tensor=2"], "parallelism.secondary_group", ["other parts", "tensor=1 and"]),
        (
            ["parallelism=hpz", "parallelism.shard_group=4"],
            "parallelism.secondary_group",
            ["parallelism.shard_group=null"],
        ),
        (["parallelism=offload3", "parallelism.zero_stage=2"], "parallelism.offload_parameters", ["parameters=none"]),
        (
            ["parallelism=offload", "parallelism.zero_stage=0"],
            "parallelism.offload_optimizer",
            ["zero_stage=1 or more"],
        ),
        (["parallelism=offload", "parallelism.tensor=2"], "parallelism.offload_optimizer", ["tensor 2", "tensor=1"]),
        (
            ["parallelism=offload", "parallelism.zero_stage=1", "parallelism.pipeline=2"],
            "parallelism.offload_optimizer",
            ["pipeline 2", "offload_optimizer=none, or parallelism.pipeline=1"],
        ),
        (["parallelism=offload3", "parallelism.shard_group=4"], "parallelism.offload_optimizer", ["shard_group=null"]),
        (["parallelism=offload3", "parallelism.secondary_group=4"], "parallelism.offload_optimizer", ["group=1"]),
        (
            ["parallelism=offload", MOE, "parallelism.expert=2"],
            "parallelism.offload_optimizer",
            ["parallelism.expert=1"],
        ),
        (["parallelism=hpz", MOE, "parallelism.expert=2"], "parallelism.expert", ["secondary_group"]),
        (
            ["parallelism=offload", "parallelism.offload_optimizer=nvme", "parallelism.nvme_path=/disk"],
            "parallelism.offload_optimizer",
            ["nvme goes with ZeRO stage 3 alone, and this is stage 2"],
        ),
        (["parallelism=offload3", "parallelism.offload_optimizer=nvme"], "parallelism.nvme_path", ["has no value"]),
        (["parallelism=nvme", "parallelism.nvme_path=disk"], "parallelism.nvme_path", ["'disk' is no", "$TMPDIR"]),
        (
            ["parallelism=nvme", "parallelism.nvme_path=/disk", "parallelism.tensor=2"],
            "parallelism.offload_optimizer",
            ["tensor 2"],
        ),
    ],
)
def test_what_does_not_divide_is_refused(overrides: list[str], where: str, phrases: list[str]) -> None:
    found = problems(*overrides)
    assert where in found
    assert [phrase for phrase in phrases if phrase not in found[where]] == []


@pytest.mark.parametrize(
    "overrides",
    [
        ["parallelism=tp", LATENT, "model.num_kv_heads=1"],  # latent attention has no heads of keys
        ["parallelism=tp", MOE, "model.intermediate_size=95", "model.moe.shared_intermediate_size=0"],  # nor layers
        ["parallelism=sp", "parallelism.sequence=4", "model.num_kv_heads=1"],  # heads of keys are repeated
        ["parallelism=sp", "parallelism.tensor=2"],
        ["parallelism=ep", MOE, "parallelism.sequence=2", "parallelism.expert=4", "model.num_kv_heads=4"],
        ["parallelism=ep", MOE, "parallelism.zero_stage=3"],
        ["parallelism=ep", MOE, "parallelism.pipeline=2"],
        ["parallelism=ep", EVEN, "parallelism.tensor=2", "parallelism.zero_stage=2"],
        ["parallelism=mics", "parallelism.shard_group=3", "parallelism.tensor=2"],
        ["parallelism=hpz", "parallelism.secondary_group=4", "parallelism.sequence=2"],
        ["parallelism=offload", "parallelism.zero_stage=1"],
        ["parallelism=offload3", "parallelism.sequence=2"],
    ],
)
def test_what_goes_together_is_planned(overrides: list[str]) -> None:
    assert problems(*overrides) == {}


@pytest.mark.parametrize("strategy", Groups().choices("parallelism"))
def test_every_strategy_that_is_shipped_can_be_planned(strategy: str) -> None:
    besides = {"ep": [MOE, "model.moe.shared_intermediate_size=8"], "nvme": ["parallelism.nvme_path=/disk"]}
    assert problems(f"parallelism={strategy}", *besides.get(strategy, [])) == {}


def test_weights_on_disks_are_no_choice() -> None:
    """DeepSpeed runs out of buffers for them: docs/verification.md."""
    with pytest.raises(ConfigError, match="'none' or 'cpu'"):
        resolve([*SMOKE, "parallelism=offload3", "parallelism.offload_parameters=nvme"])
