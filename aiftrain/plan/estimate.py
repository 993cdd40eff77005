"""What a run will take, as far as arithmetic tells: parameters, tokens, FLOPs, memory, storage, billing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aiftrain.checkpoint.stores.filesystem import FileSystem
from aiftrain.plan.flops import run_flops
from aiftrain.plan.init_from import init_warnings
from aiftrain.plan.limits import chosen_partition, is_queued, seconds_of, site_warnings, time_limit
from aiftrain.plan.memory import (
    GIB,
    STAGES,
    StateBytes,
    checkpoint_bytes,
    memory_per_rank,
    states_of,
    uses_autocast,
)
from aiftrain.plan.swapping import swaps
from aiftrain.plan.training_stages import stage_warnings
from aiftrain.run.base import Strict
from aiftrain.run.layout import ParallelLayout, make_layout
from aiftrain.run.offload import disk_bytes
from aiftrain.run.precision import is_half
from aiftrain.run.spec import Precision, Recompute, RunSpec
from aiftrain.run.timeline import Timeline


class Stage(Strict):
    """What holds from a step on: sequences in a batch and in a micro-batch, their length in tokens, the rotary base."""

    name: str | None  # None: before the first stage
    first_step: int
    steps: int
    tokens: int
    global_batch: int
    micro_batch: int
    sequence_length: int
    rope_theta: float
    recompute: Recompute


class Estimate(Strict):
    """Sizes in bytes, `flops` in floating-point operations, `time_limit` as the scheduler writes it."""

    parameters: int
    tokens: int
    steps: int
    stages: tuple[Stage, ...]
    flops_per_token: float  # on the average
    flops: float
    flops_6nd: float  # 6 x active parameters x tokens, as the EU's guidelines count
    states: StateBytes
    states_by_stage: tuple[int, ...]  # of one rank, ZeRO stage 0 to 3
    memory_per_rank: int | None
    checkpoint_bytes: int
    checkpoints_kept_bytes: int
    partition: str | None
    time_limit: str | None
    billing_unit: str | None
    billed_per_hour: float | None
    billed_at_most: float | None  # for one job of `time_limit`
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]
    unknowns: tuple[str, ...]


def estimate(spec: RunSpec, precision: Precision) -> Estimate:
    """Everything that follows from the spec without measuring anything."""
    model, timeline = spec.model, spec.timeline
    tokens, flops = timeline.total_tokens, run_flops(spec)
    checkpoint = checkpoint_bytes(spec)
    limit = time_limit(spec)
    billing = spec.factory.billing
    per_hour = billing.per_node_hour * spec.nodes if billing else None
    return Estimate(
        parameters=model.parameters,
        tokens=tokens,
        steps=timeline.total_steps,
        stages=tuple(_stages(timeline)),
        flops_per_token=flops / tokens,
        flops=flops,
        flops_6nd=6.0 * model.active_parameters * tokens,
        states=states_of(spec, precision),
        states_by_stage=tuple(states_of(spec, precision, stage=stage).total for stage in STAGES),
        memory_per_rank=memory_per_rank(spec),
        checkpoint_bytes=checkpoint,
        checkpoints_kept_bytes=checkpoint * checkpoints_kept(spec),
        partition=chosen_partition(spec) if is_queued(spec) else None,
        time_limit=limit,
        billing_unit=billing.unit if billing else None,
        billed_per_hour=per_hour,
        billed_at_most=per_hour * (seconds_of(limit) or 0) / 3600 if per_hour and limit else None,
        assumptions=_assumptions(spec, precision),
        warnings=_warnings(spec, precision),
        unknowns=_unknowns(spec),
    )


def _stages(timeline: Timeline) -> Iterator[Stage]:
    for phase, steps in timeline.spans():
        yield Stage(
            name=phase.stage,
            first_step=phase.first_step,
            steps=steps,
            tokens=steps * phase.tokens_per_step,
            global_batch=phase.global_batch,
            micro_batch=phase.micro_batch,
            sequence_length=phase.sequence_length,
            rope_theta=phase.rope_theta,
            recompute=phase.recompute,
        )


def checkpoints_kept(spec: RunSpec) -> int:
    """The most checkpoints that lie at home at one time: the last few, every n-th, and the one being written.

    And those that an archive may lack: the newest are carried first, so that they come on top of the last few.
    """
    every = spec.storage.keep_every
    milestones = spec.timeline.total_steps // every if every else 0
    saves = -(-spec.timeline.total_steps // spec.storage.save_every)
    unshipped = spec.storage.keep_unshipped if spec.storage.archives else 0
    return min(spec.storage.keep_last + milestones + unshipped + 1, saves)


def _assumptions(spec: RunSpec, precision: Precision) -> tuple[str, ...]:
    return (
        _arithmetic(spec, precision),
        "FLOPs: 6 a matrix weight and token, and causal attention (arXiv 2204.02311, appendix B)",
        "model states as ZeRO shares them out (arXiv 1910.02054)",
        *_on_disks(spec),
        *_announced(spec),
        *_without_container(spec),
    )


def _arithmetic(spec: RunSpec, precision: Precision) -> str:
    """What weights, gradients and products are, and why they are no bf16 where nobody asked for something else."""
    scaled = ", losses scaled" if precision == "fp16" else ""
    if precision == "fp32":
        arithmetic = "fp32 weights, gradients and products"
    elif uses_autocast(spec, precision, spec.parallelism.stage):
        arithmetic = f"{precision} products (autocast) on fp32 weights{scaled}"
    else:
        arithmetic = f"{precision} weights, gradients summed in fp32, fp32 master weights{scaled}"
    without = spec.train.precision == "auto" and not spec.hardware.bf16
    return f"{arithmetic}, because {spec.hardware.name} has no fast bf16" if without else arithmetic


def _on_disks(spec: RunSpec) -> Iterator[str]:
    layout = make_layout(spec)
    if swaps(spec) and isinstance(layout, ParallelLayout):
        need, path = disk_bytes(spec, layout) / GIB, spec.parallelism.nvme_path
        yield f"{need:,.0f} GiB on a disk of each node, in {path}, whose speed is left out"


def _without_container(spec: RunSpec) -> Iterator[str]:
    container = spec.factory.container
    if container and container.image is None and is_queued(spec):
        image = "factory.container.image=<yours>"
        yield f"no container, because no image is named ({image}): the ranks' Python is that of a virtual environment"


def _announced(spec: RunSpec) -> Iterator[str]:
    """What a plan on a machine that does not run yet rests on."""
    hardware = spec.hardware
    if spec.factory.status != "announced":
        return
    yield f"the nodes of {spec.factory.name} taken as {hardware.name}: {hardware.title}"
    unsure = [key for key, source in hardware.provenance.items() if source.confidence in ("announced", "inferred")]
    if unsure:
        yield f"announced or inferred, not documented: {', '.join(unsure)}"


def _warnings(spec: RunSpec, precision: Precision) -> tuple[str, ...]:
    warnings = []
    factory, steps = spec.factory, spec.timeline.total_steps
    if factory.status == "announced":
        warnings.append(f"{factory.name} is announced: nothing runs there yet, and its figures may change")
    if factory.account_required and not spec.account and is_queued(spec):
        warnings.append(f"launching on {factory.name} needs account=<your project's account>")
    warnings += site_warnings(spec)
    warnings += stage_warnings(spec)
    warnings += init_warnings(spec)
    if warning := spec.storage.seal.warning:
        warnings.append(f"checkpoints are {warning} (storage.seal.recipients, docs/sealing.md)")
    warnings += filter(None, [FileSystem.of(Path(spec.storage.path or spec.run_folder)).warning])
    if spec.optimizer.warmup_steps >= steps:
        warnings.append(f"the warm-up of {spec.optimizer.warmup_steps} steps does not end before the run ({steps})")
    fast = (spec.hardware.bf16 and precision == "bf16") or not spec.hardware.is_cpu
    if is_half(precision) and not fast:
        found = f"{spec.hardware.name} is not known to be fast at {precision}"
        warnings.append(f"{found}: train.precision=fp32 may be faster")
    return tuple(warnings)


def _unknowns(spec: RunSpec) -> tuple[str, ...]:
    """What nobody documents, of what this plan would need."""
    hardware = spec.hardware
    needed: dict[str, float | None] = {
        "hardware.node_memory_gib" if hardware.is_cpu else "hardware.device_memory_gib": memory_per_rank(spec),
        "hardware.usable_cores_per_node": hardware.usable_cores_per_node,
    }
    if not hardware.is_cpu:
        needed["hardware.matmul_bf16_tflops"] = hardware.matmul_bf16_tflops
        needed["hardware.node_memory_gib"] = hardware.node_memory_gib
    return tuple(key for key, value in needed.items() if value is None)
