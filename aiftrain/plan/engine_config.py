"""deepspeed.json: what DeepSpeed is told, each setting with its reason, derived from the spec and its layout."""

from __future__ import annotations

from typing import Any

from aiftrain.run.layout import ParallelLayout
from aiftrain.run.model import ModelSpec
from aiftrain.run.spec import Precision, RunSpec


def uses_autocast(spec: RunSpec, precision: Precision, stage: int) -> bool:
    """Whether bf16 means fp32 weights with bf16 products (autocast) instead of bf16 weights with fp32 masters.

    On CPUs it does, because there memory is no concern and every ZeRO stage then keeps one kind of weight;
    and without ZeRO (stage 0), where DeepSpeed cannot accumulate bf16 gradients in fp32.
    """
    return precision == "bf16" and (spec.hardware.is_cpu or stage == 0)


def deepspeed_config(spec: RunSpec, layout: ParallelLayout, precision: Precision) -> dict[str, Any]:
    """The configuration for `deepspeed.initialize`. The optimizer is ours (fused AdamW), so it has no section."""
    config: dict[str, Any] = {
        # DeepSpeed counts what each of its data-parallel ranks gets; ranks that share a sequence are such ranks.
        "train_batch_size": layout.sharers * layout.micro_batch * layout.accumulation,
        "train_micro_batch_size_per_gpu": layout.micro_batch,
        "gradient_accumulation_steps": layout.accumulation,
        # Without ZeRO our engine clips, because DeepSpeed would not tell the norm.
        "gradient_clipping": spec.optimizer.grad_clip if layout.zero_stage else 0.0,
        "zero_optimization": _zero(spec, layout),
        "zero_allow_untested_optimizer": True,  # DeepSpeed has a list of known ones; torch's AdamW behaves alike
        "steps_per_print": 2**31 - 1,  # our own metrics say it all
        "wall_clock_breakdown": False,
    }
    if precision == "bf16" and not uses_autocast(spec, precision, layout.zero_stage):
        config["bf16"] = {"enabled": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}  # small gradients vanish when summed in bf16
    return config


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
    if stage == 3:
        zero["stage3_prefetch_bucket_size"] = elements
        zero["stage3_param_persistence_threshold"] = persistent_elements(spec.model)
    else:
        zero["allgather_bucket_size"] = elements
    return zero
