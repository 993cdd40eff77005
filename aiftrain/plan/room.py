"""Whether a run finds room in a rank's memory, and which change of layout would make it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from aiftrain.plan.buckets import bucket_elements, live_elements
from aiftrain.plan.engine_traits import OURS, OURS_DENSE, OURS_ON_CPU, EngineTraits
from aiftrain.plan.layouts import RECOMPUTE, layout_of, legal
from aiftrain.plan.memory import GIB, memory_per_rank, offloaded, optimizer_bytes, uses_autocast
from aiftrain.plan.memory_use import MemoryUse, memory_use
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import Precision, RunSpec

MARGIN = 0.95  # of a device's memory: closer than that the allocator's holes decide


def memory(spec: RunSpec, layout: ParallelLayout, precision: Precision) -> MemoryUse:
    """The most that one rank needs of its device's memory, or on CPUs of its node's, in the stage that needs most."""
    element = 2 if precision != "fp32" and not uses_autocast(spec, precision, layout.zero_stage) else 4
    traits = replace(
        _traits(spec, precision),
        states=optimizer_bytes(spec) / spec.model.parameters,
        bucket_elements=bucket_elements(spec, layout, element),
        live_elements=live_elements(spec, element),
        weights_on_host=offloaded(spec, "offload_parameters"),
        optimizer_on_host=offloaded(spec, "offload_optimizer"),
        secondary_group=spec.parallelism.secondary_group,
    )
    uses = (
        memory_use(
            spec.model, layout.during(phase), sequence_length=phase.sequence_length, precision=precision, traits=traits
        )
        for phase, _ in spec.timeline.spans()
    )
    return max(uses, key=lambda use: use.total)


def _traits(spec: RunSpec, precision: Precision) -> EngineTraits:
    """The engine with the kernel of attention that it will find: train/kernels.py chooses it.

    NVIDIA's GPUs without bf16, V100 and older, are too old for flash attention (sm80 and up, torch's sdp_utils.cpp).
    """
    if spec.hardware.is_cpu:
        return OURS_ON_CPU
    computes = precision != "fp32" and spec.hardware.bf16
    flash = computes and spec.model.latent is None and spec.model.positions != "alibi"
    wanted = spec.train.attention
    dense = wanted == "dense" or (wanted == "auto" and not flash and not spec.train.compile)
    return OURS_DENSE if dense else OURS


def has_room(spec: RunSpec, use: MemoryUse) -> bool | None:
    """Whether that much fits on a rank; None where nobody documents its memory."""
    have = memory_per_rank(spec)
    return None if have is None else use.total <= have * MARGIN


def what_fits(spec: RunSpec, precision: Precision) -> str:
    """The least change of layout that fits: recomputation first, then smaller micro-batches, then a higher stage."""
    forms = sorted(legal(spec), key=_upheaval(spec))
    for form in forms:
        use = memory(form, layout_of(form), precision)
        if has_room(form, use):
            return f"{' '.join(_changes(spec, form))} would take {use.total / GIB:,.1f} GiB"
    return "no layout on these nodes fits: give it more of them"


def _upheaval(spec: RunSpec) -> Callable[[RunSpec], tuple[int, int, int]]:
    """How far a form of `spec` is from it; forms with less sharing or larger micro-batches are last."""

    def distance(form: RunSpec) -> tuple[int, int, int]:
        stages = form.parallelism.stage - spec.parallelism.stage
        halved = spec.train.micro_batch - form.train.micro_batch
        return (stages if stages >= 0 else 9, halved if halved >= 0 else 9999, RECOMPUTE.index(form.train.recompute))

    return distance


def _changes(spec: RunSpec, form: RunSpec) -> Iterator[str]:
    """The overrides that make `form` of `spec`."""
    if form.parallelism.stage != spec.parallelism.stage:
        yield f"parallelism=zero{form.parallelism.stage}"
    if form.train.micro_batch != spec.train.micro_batch:
        yield f"train.micro_batch={form.train.micro_batch}"
    if form.train.recompute != spec.train.recompute:
        yield f"train.recompute={form.train.recompute}"
