"""deepspeed.json: bf16 by masters on GPUs and by autocast on CPUs, who clips, and what each stage is told."""

from __future__ import annotations

from typing import Any

import pytest

from aiftrain.plan.engine_config import deepspeed_config
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve


def config_of(*overrides: str) -> dict[str, Any]:
    spec = resolve(list(overrides))
    execution = make_plan(spec).execution
    return deepspeed_config(spec, execution.layout, execution.precision)


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3"])
def test_a_gpu_gets_bf16_weights_and_sums_gradients_in_fp32(strategy: str) -> None:
    config = config_of("recipe=eu-llm-1b", "factory=lumi", "nodes=16", f"parallelism={strategy}")
    assert config["bf16"] == {"enabled": True}
    assert config["data_types"] == {"grad_accum_dtype": "fp32"}
    assert config["zero_optimization"]["overlap_comm"] is True


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cpu_keeps_fp32_weights(precision: str) -> None:
    config = config_of("recipe=smoke", f"train.precision={precision}")
    assert "bf16" not in config
    assert config["zero_optimization"]["overlap_comm"] is False


def test_deepspeed_clips_where_it_tells_the_norm() -> None:
    assert config_of("recipe=smoke", "parallelism=ddp")["gradient_clipping"] == 0.0
    assert config_of("recipe=smoke", "parallelism=zero2", "optimizer.grad_clip=0.5")["gradient_clipping"] == 0.5


def test_batches_are_those_of_the_layout() -> None:
    config = config_of("recipe=smoke", "launcher.ranks_per_node=2", "train.micro_batch=2")
    assert config["train_batch_size"] == 8
    assert config["train_micro_batch_size_per_gpu"] == 2
    assert config["gradient_accumulation_steps"] == 2
