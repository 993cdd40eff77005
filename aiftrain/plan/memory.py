"""Model states: the bytes that weights, gradients and optimizer take on one rank, under each ZeRO stage."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate, chain, pairwise
from typing import Literal

from aiftrain.plan.parameters import Groups, Shares, expert_sizes, tensor_sizes
from aiftrain.plan.swapping import buffer_bytes
from aiftrain.run.base import Strict
from aiftrain.run.layout import ranks_per_node
from aiftrain.run.model import ModelSpec
from aiftrain.run.precision import is_half
from aiftrain.run.spec import Precision, RunSpec
from aiftrain.run.stages import stage_bounds

GIB = 2**30
STAGES = (0, 1, 2, 3)


class StateBytes(Strict):
    """Bytes on one rank. Activations, buffers and the libraries come on top."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer


def state_bytes(
    groups: Groups, ranks: int, stage: int, *, states: tuple[int, ...], weights: Precision, persistent: int = 0
) -> StateBytes:
    """Model states on the fullest of `ranks` ranks, as DeepSpeed allocates them (ZeRO, arXiv 1910.02054, section 3).

    groups: elements of each tensor, by optimizer group. weights: the numbers that layers compute with.
    states: how many the optimizer keeps of an element, by group.
    persistent: under stage 3, tensors of up to so many elements stay whole on every rank.

    Bytes a parameter. 16-bit weights: 2; the sum of gradients in fp32, 4, to which each gradient of a micro-batch is
    added at once; optimizer 4 for the fp32 weight and 4 for each state (of AdamW two: 12). fp32 weights, which stage 0
    always has: 4, 4 and the states, to which ZeRO adds 4 for the copy of its own part that it updates. Stage 1 shares
    out the optimizer's part, stage 2 also the gradients, stage 3 also the weights. Stages 1 and 2 pad each group to a
    multiple of twice the ranks, but of gradients only under bf16; stage 3 pads each tensor to a multiple of the ranks.
    Step counts are left out.
    """
    plain = sum(sum(group) for group in groups)
    if stage == 0:
        return StateBytes(weights=4 * plain, gradients=4 * plain, optimizer=_kept(map(sum, groups), states, masters=0))
    width = 2 if is_half(weights) else 4
    if stage == 3:
        counts = _counts(groups)
        parts = [sum(-(-size // ranks) for size in group) for group in groups]
        part = sum(parts)
        whole = sum(count * -(-size // ranks) * ranks for size, count in counts.items() if size <= persistent)
        return StateBytes(weights=width * (part + whole), gradients=4 * part, optimizer=_kept(parts, states))
    padded = [-(-sum(group) // (2 * ranks)) * 2 * ranks for group in groups]
    parts = [size // ranks for size in padded]
    if stage == 1:
        gradients = 4 * (sum(padded) if weights == "bf16" else plain)
    else:
        gradients = 4 * sum(parts) if is_half(weights) else 4 * _most_touched(groups, parts)
    return StateBytes(weights=width * sum(padded), gradients=gradients, optimizer=_kept(parts, states))


def _kept(elements: Iterable[int], states: tuple[int, ...], masters: int = 1) -> int:
    """Bytes that the optimizer keeps of so many elements of each group."""
    return sum(4 * (masters + count) * size for size, count in zip(elements, states, strict=True))


def uses_autocast(spec: RunSpec, precision: Precision, stage: int) -> bool:
    """Whether 16 bits mean fp32 weights with bf16 or fp16 products (autocast) instead of such weights and fp32 masters.

    On CPUs it does, because there memory is no concern and every ZeRO stage then keeps one kind of weight;
    and without ZeRO (stage 0), where DeepSpeed cannot accumulate 16-bit gradients in fp32.
    """
    return is_half(precision) and (spec.hardware.is_cpu or stage == 0)


def persistent_elements(model: ModelSpec) -> int:
    """Under stage 3 tensors of up to so many elements (norms) stay whole: gathering them costs more than they weigh."""
    return model.hidden_size * 2


@lru_cache(maxsize=64)
def _counts(groups: Groups) -> Counter[int]:
    """How many tensors have each size."""
    return Counter(chain.from_iterable(groups))


def _most_touched(groups: Groups, parts: list[int]) -> int:
    """Elements of all tensors that reach into one rank's part of the groups, for the rank where they are most.

    With fp32 weights stage 2 keeps the gradients of such tensors whole. Only where a tensor begins can the number
    rise, so only those ranks and the next ones are looked at.
    """
    edges = [[0, *accumulate(group)] for group in groups]
    first = {start // part for starts, part in zip(edges, parts, strict=True) for start in starts}
    ranks = first | {rank + 1 for rank in first}
    return max(
        sum(_touched(ends, rank * part, (rank + 1) * part) for ends, part in zip(edges, parts, strict=True))
        for rank in ranks
    )


def _touched(edges: list[int], begin: int, end: int) -> int:
    """Elements of the tensors between `edges` that have one in [begin, end)."""
    if begin >= edges[-1]:
        return 0
    return edges[min(bisect_left(edges, end), len(edges) - 1)] - edges[bisect_right(edges, begin) - 1]


def states_of(spec: RunSpec, precision: Precision, *, nodes: int | None = None, stage: int | None = None) -> StateBytes:
    """The model states of one rank of `spec`, or of the same run on other nodes or with another ZeRO stage.

    Of a pipeline's ranks those of the stage that holds most.
    """
    stage = spec.parallelism.stage if stage is None else stage
    weights: Precision = "fp32" if uses_autocast(spec, precision, stage) else precision
    held = (_bytes_on_a_rank(spec, layers, nodes or spec.nodes, stage, weights) for layers in _stages_of(spec))
    return max(held, key=lambda states: states.total)


def _bytes_on_a_rank(spec: RunSpec, layers: range, nodes: int, stage: int, weights: Precision) -> StateBytes:
    """Of the ranks of a stage of the pipeline with these layers. Experts that ranks share out have fewer holders."""
    strategy, groups = spec.parallelism, spec.optimizer.groups
    sharers = max(1, nodes * ranks_per_node(spec) // (strategy.pipeline * strategy.tensor))
    shares = Shares(strategy.tensor, strategy.expert)
    parts = [
        (tensor_sizes(spec.model, groups, layers, shares), strategy.shard_group or sharers),
        (expert_sizes(spec.model, groups, layers, shares), max(1, sharers // strategy.expert)),
    ]
    states = tuple(len(group.states) for group in groups)
    persistent = persistent_elements(spec.model)
    held = [
        state_bytes(
            tuple(group for group in sizes if group),
            ranks,
            stage,
            states=tuple(kept for group, kept in zip(sizes, states, strict=True) if group),
            weights=weights,
            persistent=persistent,
        )
        for sizes, ranks in parts
        if any(sizes)
    ]
    whole = StateBytes(**{name: sum(getattr(each, name) for each in held) for name in StateBytes.model_fields})
    width, elements = (2 if is_half(weights) else 4), sum(sum(map(sum, sizes)) for sizes, _ in parts)
    return _on_device(spec, whole, copy=width * elements // strategy.secondary_group)


def _on_device(spec: RunSpec, states: StateBytes, copy: int) -> StateBytes:
    """What of the states of a rank lies in its device's memory, with the `copy` for a secondary group."""
    here = {
        "weights": 0 if offloaded(spec, "offload_parameters") else states.weights,
        "optimizer": 0 if offloaded(spec, "offload_optimizer") else states.optimizer,
    }
    here["weights"] += copy if spec.parallelism.secondary_group > 1 else 0
    return states.model_copy(update=here)


def offloaded(spec: RunSpec, what: Literal["offload_optimizer", "offload_parameters"]) -> bool:
    """Whether that lies somewhere else than in the device's memory; that of CPUs is the node's."""
    place = getattr(spec.parallelism, what)
    return place == "nvme" or (place == "cpu" and not spec.hardware.is_cpu)


def host_bytes(spec: RunSpec, precision: Precision) -> int:
    """What one rank keeps in the memory of its node, besides what is in its device's: states that are offloaded.

    With the optimizer its gradients come too, in fp32. Of what is on a disk there are the buffers. (DeepSpeed 0.19.8,
    stage_1_and_2.py, stage3.py and swap_tensor/)
    """
    strategy = spec.parallelism
    nowhere = strategy.model_copy(update={"offload_optimizer": "none", "offload_parameters": "none"})
    everything = states_of(spec.model_copy(update={"parallelism": nowhere}), precision)
    sharers = max(1, spec.nodes * ranks_per_node(spec) // (strategy.pipeline * strategy.tensor))
    held = buffer_bytes(spec, sharers)
    if spec.hardware.is_cpu:
        return held
    held += everything.weights if strategy.offload_parameters == "cpu" else 0
    if strategy.offload_optimizer != "cpu":
        return held
    fewest = min(len(group.states) for group in spec.optimizer.groups)
    return held + everything.optimizer * (fewest + 2) // (fewest + 1)


def _stages_of(spec: RunSpec) -> Iterator[range]:
    """The layers of each stage of the run's pipeline; all where there is none."""
    model = spec.model
    bounds = stage_bounds(model, spec.parallelism.pipeline, spec.train.sequence_length) or (0, model.num_layers)
    return (range(*ends) for ends in pairwise(bounds))


def optimizer_bytes(spec: RunSpec) -> int:
    """Of the states that the optimizer keeps of the whole model, fp32, without weights."""
    groups = spec.optimizer.groups
    sizes = map(sum, tensor_sizes(spec.model, groups))
    return _kept(sizes, tuple(len(group.states) for group in groups), masters=0)


def checkpoint_bytes(spec: RunSpec) -> int:
    """Of one checkpoint: fp32 weights and the optimizer's states."""
    return 4 * spec.model.parameters + optimizer_bytes(spec)


def memory_per_rank(spec: RunSpec) -> int | None:
    """Bytes one rank may use: its device's, or on CPUs its share of the node's. None where nobody documents it."""
    hardware = spec.hardware
    gib = hardware.node_memory_gib if hardware.is_cpu else hardware.device_memory_gib
    if gib is None:
        return None
    sharing = ranks_per_node(spec) / hardware.devices_per_node
    return int(gib * GIB / max(1.0, sharing))


def choose_precision(spec: RunSpec) -> Precision:
    """What was asked for; `auto` is bf16 where the hardware has fast bf16, and fp16 on a GPU that has not.

    Whether a CPU is fast at bf16 is known only on the spot; none is taken to be at fp16.
    """
    if spec.train.precision != "auto":
        return spec.train.precision
    hardware = spec.hardware
    return "fp32" if hardware.is_cpu and not hardware.bf16 else hardware.half
