"""What ZeRO hands to collectives in a step: gradients and weights, in bytes of one rank, by kind."""

from __future__ import annotations

from collections.abc import Iterator

from aiftrain.plan.gathers import gathers
from aiftrain.plan.memory import persistent_elements
from aiftrain.plan.parameters import Groups, Shares, expert_sizes, tensor_sizes
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec

_FP32 = 4


def state_traffic(
    spec: RunSpec, layout: ParallelLayout, layers: range, *, width: int, reuse: int
) -> Iterator[tuple[str, int]]:
    """width: bytes of a weight and a gradient as they travel. reuse: DeepSpeed's stage3_max_reuse_distance."""
    groups, shares = spec.optimizer.groups, Shares(layout.tensor_parallel, layout.expert_parallel)
    plain = tensor_sizes(spec.model, groups, layers, shares)
    of_experts = expert_sizes(spec.model, groups, layers, shares)
    ranks, same_experts = layout.shard_group or layout.sharers, layout.sharers // layout.expert_parallel
    for sizes, group in ((plain, ranks), (of_experts, same_experts)):
        if group > 1:
            yield from _of_stage(spec, layout, sizes, group, width)
    if layout.zero_stage == 3 and ranks > 1:
        yield "all_gather", width * _gathered(spec, layout, ranks, reuse)
    if layout.sharers > ranks:  # replicas of a shard_group: this rank's part of all gradients
        yield "all_reduce", _FP32 * _parts(plain, ranks)


def _of_stage(
    spec: RunSpec, layout: ParallelLayout, groups: Groups, ranks: int, width: int
) -> Iterator[tuple[str, int]]:
    """Of tensors that `ranks` ranks share out or have in common."""
    stage, rounds = layout.zero_stage, layout.accumulation
    if stage == 3:
        persistent = persistent_elements(spec.model)
        yield "reduce_scatter", rounds * width * _parts(groups, ranks) * ranks
        small = tuple(tuple(size for size in group if size <= persistent) for group in groups)
        yield "all_gather", width * _parts(small, ranks)
        return
    # By all-reduce, at stage 2 after every micro-batch: a rank has no place for the sum of others' parts.
    yield "all_reduce", width * sum(map(sum, groups)) * (rounds if stage == 2 else 1)
    if stage:  # groups are padded to twice the ranks
        yield "all_gather", width * sum(-(-sum(group) // (2 * ranks)) * 2 for group in groups)


def _parts(groups: Groups, ranks: int) -> int:
    """Elements of one rank's parts, of which each is padded."""
    return sum(-(-size // ranks) for group in groups for size in group)


def _gathered(spec: RunSpec, layout: ParallelLayout, ranks: int, reuse: int) -> int:
    """Elements of weights in a step. With a secondary copy all but the first gather of each is from that."""
    first, again = gathers(spec.model, layout, persistent_elements(spec.model), reuse)
    rounds, secondary = layout.accumulation, spec.parallelism.secondary_group
    rest = (rounds - 1) * first + rounds * again
    return first + (rest * ranks // secondary if secondary > 1 else rest)
