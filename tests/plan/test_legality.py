"""Layouts that the engine cannot run are refused, each with what would fit."""

from __future__ import annotations

import pytest

from aiftrain.errors import ConfigError
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
        (["parallelism=hpz", MOE, "parallelism.expert=2"], "parallelism.expert", ["secondary_group"]),
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
    ],
)
def test_what_is_not_shared_out_need_not_divide(overrides: list[str]) -> None:
    assert problems(*overrides) == {}
