"""deepspeed.json: bf16 by masters on GPUs and by autocast on CPUs, who clips, and what each stage is told."""

from __future__ import annotations

from typing import Any

import pytest

from aiftrain.plan.engine_config import deepspeed_config
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.plan.throughput.constants import shipped


def config_of(*overrides: str) -> dict[str, Any]:
    spec = resolve(list(overrides))
    execution = make_plan(spec).execution
    return deepspeed_config(spec, execution.layout, execution.precision)


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3"])
def test_a_gpu_gets_bf16_weights_and_sums_gradients_in_fp32(strategy: str) -> None:
    config = config_of("recipe=eu-llm-1b", "factory=lumi", "nodes=16", f"parallelism={strategy}")
    assert config["bf16"] == {"enabled": True, "immediate_grad_update": True}
    assert config["data_types"] == {"grad_accum_dtype": "fp32"}
    assert config["zero_optimization"]["overlap_comm"] is True


@pytest.mark.parametrize("strategy", ["zero1", "zero3"])
def test_without_bf16_a_gpu_gets_fp16_weights_and_our_scale(strategy: str) -> None:
    config = config_of("recipe=eu-llm-1b", "factory=jeanzay-v100", "nodes=16", f"parallelism={strategy}")
    assert config["fp16"] == {"enabled": True, "loss_scale": 1.0}
    assert config["data_types"] == {"grad_accum_dtype": "fp32"}
    assert "bf16" not in config


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_cpu_keeps_fp32_weights(precision: str) -> None:
    config = config_of("recipe=smoke", f"train.precision={precision}")
    assert "bf16" not in config and "fp16" not in config
    assert config["zero_optimization"]["overlap_comm"] is False


def test_deepspeed_clips_where_it_tells_the_norm() -> None:
    assert config_of("recipe=smoke", "parallelism=ddp")["gradient_clipping"] == 0.0
    assert config_of("recipe=smoke", "parallelism=zero2", "optimizer.grad_clip=0.5")["gradient_clipping"] == 0.5


def test_batches_are_those_of_the_layout() -> None:
    config = config_of("recipe=smoke", "launcher.ranks_per_node=2", "train.micro_batch=2")
    assert config["train_batch_size"] == 8
    assert config["train_micro_batch_size_per_gpu"] == 2
    assert config["gradient_accumulation_steps"] == 2


def zero_of(*overrides: str) -> dict[str, Any]:
    zero: dict[str, Any] = config_of("recipe=eu-llm-1b", "factory=lumi", *overrides)["zero_optimization"]
    return zero


def test_buckets_grow_with_the_ranks_until_memory_or_overlap_forbid() -> None:
    sizes = [("parallelism=zero2", "train.micro_batch=1", f"nodes={nodes}") for nodes in (4, 16, 128)]
    few, more, most = (zero_of(*size)["reduce_bucket_size"] for size in sizes)
    assert few == int(10 * shipped().constants.hop_seconds * 32 * 12.5e9 / 2)
    assert more == pytest.approx(4 * few)
    model = resolve(["recipe=eu-llm-1b", "factory=lumi"]).model
    assert most == model.parameters // 8


def test_one_rank_has_the_smallest_bucket() -> None:
    zero = config_of("recipe=smoke", "parallelism=zero1")["zero_optimization"]
    assert zero["reduce_bucket_size"] == zero["allgather_bucket_size"] == 5_000_000


def test_memory_limits_a_bucket() -> None:
    large = config_of("recipe=eu-llm-70b", "factory=lumi", "nodes=256", "parallelism=zero3", "train.micro_batch=1")
    assert large["zero_optimization"]["reduce_bucket_size"] == int(0.01 * 64 * 2**30 / 2)


def test_a_stated_bucket_is_taken() -> None:
    zero = zero_of("parallelism=zero1", "nodes=2", "parallelism.bucket_millions=7")
    assert zero["reduce_bucket_size"] == zero["allgather_bucket_size"] == 7_000_000


def test_stage_3_fetches_one_layer_ahead_and_keeps_what_memory_allows() -> None:
    zero = zero_of("parallelism=zero3", "nodes=2")
    assert zero["stage3_prefetch_bucket_size"] == resolve(["recipe=eu-llm-1b", "factory=lumi"]).model.layer_parameters(
        0
    )
    assert zero["stage3_max_live_parameters"] == 10**9
    small = config_of(
        *("recipe=smoke", "factory=local", "hardware=v100-16", "hardware.devices_per_node=1", "train.micro_batch=8"),
        *("parallelism=zero3", "train.precision=fp32"),
    )
    assert small["zero_optimization"]["stage3_max_live_parameters"] == int(0.1 * 16 * 2**30 / 4)


def test_states_on_a_disk_have_a_folder_of_their_run_and_as_many_buffers_as_states() -> None:
    words = ["recipe=eu-llm-1b", "factory=lumi", "parallelism=nvme", "parallelism.nvme_path=$TMPDIR"]
    offload = zero_of(*words[2:])["offload_optimizer"]
    assert offload["nvme_path"] == f"$TMPDIR/{resolve(words).digest}"
    assert offload["buffer_count"] == 4, "weights, gradients, two states of AdamW"
    assert (
        zero_of(*words[2:], "optimizer=ademamix", "optimizer.ema_decay=0.9")["offload_optimizer"]["buffer_count"] == 6
    )
    assert resolve(words).digest == resolve([*words, "parallelism.nvme_path=/elsewhere"]).digest


def test_deepspeed_knows_every_setting() -> None:
    """It would only warn of a key that it does not know."""
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    for strategy in ("zero1", "zero2", "zero3", "hpz", "offload", "nvme"):
        path = ["parallelism.nvme_path=/disk"] if strategy == "nvme" else []
        config = config_of("recipe=eu-llm-1b", "factory=lumi", "nodes=2", f"parallelism={strategy}", *path)
        zero = config["zero_optimization"]
        names = {field.alias or name for name, field in DeepSpeedZeroConfig.model_fields.items()}
        assert set(zero) <= names
        assert DeepSpeedZeroConfig(**zero).stage == zero["stage"]
        assert set(config["bf16"]) <= set(DeepSpeedBF16Config.model_fields)
