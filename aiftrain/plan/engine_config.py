"""deepspeed.json: what DeepSpeed is told, each setting with its reason, derived from the spec and its layout."""

from __future__ import annotations

from typing import Any

from aiftrain.run.layout import ParallelLayout
from aiftrain.run.model import ModelSpec
from aiftrain.run.spec import ParallelSpec, Precision, RunSpec


def uses_autocast(spec: RunSpec, precision: Precision, stage: int) -> bool:
    """Whether bf16 means fp32 weights with bf16 products (autocast) instead of bf16 weights with fp32 masters.

    On CPUs it does, because there memory is no concern and every ZeRO stage then keeps one kind of weight;
    and without ZeRO (stage 0), where DeepSpeed cannot accumulate bf16 gradients in fp32.
    """
    return precision == "bf16" and (spec.hardware.is_cpu or stage == 0)


def deepspeed_config(spec: RunSpec, layout: ParallelLayout, precision: Precision) -> dict[str, Any]:
    """The configuration for `deepspeed.initialize`. The optimizer is ours (fused AdamW), so it has no section."""
    config: dict[str, Any] = {
        # DeepSpeed counts what each of the ranks that it knows gets, as if each had sequences of its own.
        "train_batch_size": (layout.shard_group or layout.sharers) * layout.micro_batch * layout.accumulation,
        "train_micro_batch_size_per_gpu": layout.micro_batch,
        "gradient_accumulation_steps": layout.accumulation,
        # Without ZeRO our engine clips, because DeepSpeed would not tell the norm.
        "gradient_clipping": spec.optimizer.grad_clip if layout.zero_stage else 0.0,
        "zero_optimization": _zero(spec, layout),
        "zero_allow_untested_optimizer": True,  # DeepSpeed has a list of known ones; torch's AdamW behaves alike
        "zero_force_ds_cpu_optimizer": False,  # torch's fused AdamW is fast on CPUs too, and needs no compiler there
        "steps_per_print": 2**31 - 1,  # our own metrics say it all
        "wall_clock_breakdown": False,
    }
    if precision == "bf16" and not uses_autocast(spec, precision, layout.zero_stage):
        config["bf16"] = {"enabled": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}  # small gradients vanish when summed in bf16
    return config


def _offloads(strategy: ParallelSpec) -> dict[str, Any]:
    """Where states go that are not on the device. Memory is pinned, so that copies run beside the computation."""
    places = {"offload_optimizer": strategy.offload_optimizer, "offload_param": strategy.offload_parameters}
    path = {"nvme_path": strategy.nvme_path} if "nvme" in places.values() else {}
    return {key: {"device": place, "pin_memory": True, **path} for key, place in places.items() if place != "none"}


def persistent_elements(model: ModelSpec) -> int:
    """Under stage 3 tensors of up to so many elements (norms) stay whole: gathering them costs more than they weigh."""
    return model.hidden_size * 2


def _zero(spec: RunSpec, layout: ParallelLayout) -> dict[str, Any]:
    stage = layout.zero_stage
    if stage == 0:
        return {"stage": 0}
    elements = int(spec.parallelism.bucket_millions * 1e6)
    zero: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": elements,
        "contiguous_gradients": True,  # one buffer instead of a fragmented heap
        "overlap_comm": not spec.hardware.is_cpu,  # needs device streams; a CPU has none
    }
    zero |= _offloads(spec.parallelism)
    if stage == 3:
        zero["zero_hpz_partition_size"] = spec.parallelism.secondary_group
        zero["stage3_prefetch_bucket_size"] = elements
        zero["stage3_param_persistence_threshold"] = persistent_elements(spec.model)
    else:
        zero["allgather_bucket_size"] = elements
    return zero
