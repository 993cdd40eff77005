"""deepspeed.json: what DeepSpeed is told, each setting with its reason, derived from the spec and its layout."""

from __future__ import annotations

from typing import Any

from aiftrain.plan.buckets import bucket_elements, live_elements, prefetch_elements
from aiftrain.plan.memory import persistent_elements, uses_autocast
from aiftrain.plan.swapping import PORTION, swapping_section, swaps
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.precision import is_half
from aiftrain.run.spec import Precision, RunSpec

BF16_WEIGHTS: dict[str, Any] = {
    # Stage 1: a gradient goes to its fp32 sum as soon as it is there, and is freed. Otherwise all of a micro-batch's
    # stay, 2 bytes a parameter, are set to zero, and are read once more when the next ones come.
    "bf16": {"enabled": True, "immediate_grad_update": True},
    "data_types": {"grad_accum_dtype": "fp32"},  # small gradients vanish when micro-batches are summed in bf16
    "communication_data_type": "bf16",  # half the bytes on the network; the sum over ranks then rounds as bf16 does
}
FP16_WEIGHTS: dict[str, Any] = {
    # A fixed scale, in the place of which our engine puts that of each step. DeepSpeed's own, in the step in which it
    # doubles, divides the gradients by the new one, which they were not multiplied by; stage 3 halves their norm, too.
    "fp16": {"enabled": True, "loss_scale": 1.0},
    "data_types": {"grad_accum_dtype": "fp32"},
    "communication_data_type": "fp16",
}
HALF_WEIGHTS = {"bf16": BF16_WEIGHTS, "fp16": FP16_WEIGHTS}


def deepspeed_config(spec: RunSpec, layout: ParallelLayout, precision: Precision) -> dict[str, Any]:
    """The configuration for `deepspeed.initialize`. The optimizer is ours (fused AdamW), so it has no section."""
    half_weights = is_half(precision) and not uses_autocast(spec, precision, layout.zero_stage)
    config: dict[str, Any] = {
        # DeepSpeed counts what each of the ranks that it knows gets, as if each had sequences of its own.
        "train_batch_size": (layout.shard_group or layout.sharers) * layout.micro_batch * layout.accumulation,
        "train_micro_batch_size_per_gpu": layout.micro_batch,
        "gradient_accumulation_steps": layout.accumulation,
        # Without ZeRO our engine clips, because DeepSpeed would not tell the norm.
        "gradient_clipping": spec.optimizer.grad_clip if layout.zero_stage else 0.0,
        "zero_optimization": _zero(spec, layout, element=2 if half_weights else 4),
        "zero_allow_untested_optimizer": True,  # DeepSpeed has a list of known ones; torch's AdamW behaves alike
        "zero_force_ds_cpu_optimizer": False,  # torch's fused AdamW is fast on CPUs too, and needs no compiler there
        "steps_per_print": 2**31 - 1,  # our own metrics say it all
        "wall_clock_breakdown": False,
    }
    return config | (HALF_WEIGHTS[precision] if half_weights else {})


def _offloads(spec: RunSpec) -> dict[str, Any]:
    """Where states go that are not on the device. Memory is pinned, so that copies run beside the computation."""
    strategy = spec.parallelism
    places = {"offload_optimizer": strategy.offload_optimizer, "offload_param": strategy.offload_parameters}
    zero: dict[str, Any] = {
        key: {"device": place, "pin_memory": True} for key, place in places.items() if place != "none"
    }
    if swaps(spec):
        zero["offload_optimizer"] |= swapping_section(spec)
        zero["sub_group_size"] = PORTION
    return zero


def _zero(spec: RunSpec, layout: ParallelLayout, element: int) -> dict[str, Any]:
    """`element`: bytes of a weight and of a gradient as they travel. buckets.py has the sizes and their reasons."""
    stage = layout.zero_stage
    if stage == 0:
        return {"stage": 0}
    elements = bucket_elements(spec, layout, element)
    zero: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": elements,
        "reduce_scatter": True,  # each rank gets its own part of the sums; all-reduce would send twice as much
        "contiguous_gradients": True,  # one buffer instead of a fragmented heap
        # Gradients travel beside the backward pass: that needs device streams, which a CPU lacks, and a backward pass
        # that DeepSpeed sees as one, which those of a pipeline are not.
        "overlap_comm": not spec.hardware.is_cpu and layout.pipeline_parallel == 1,
        # It would deal gradients out for faster copies to a CPU, and our fragments rest on their order.
        "round_robin_gradients": False,
    }
    zero |= _offloads(spec)
    if stage == 3:
        zero["zero_hpz_partition_size"] = spec.parallelism.secondary_group
        zero["stage3_prefetch_bucket_size"] = prefetch_elements(spec, layout, element)
        zero["stage3_param_persistence_threshold"] = persistent_elements(spec.model)
        zero["stage3_max_live_parameters"] = live_elements(spec, element)
        # A weight that is used again within that distance, as the last layers' are, is not gathered a second time.
        zero["stage3_max_reuse_distance"] = live_elements(spec, element)
    else:
        zero["allgather_bucket_size"] = elements
    return zero
