"""Degrees of model parallelism that are worth a look, of those that the engine can run on a spec's nodes.

Thousands could be tried; these rules leave some ten. Ranks of a tensor and of a sequence talk in every layer: only
inside a node's fast domain. Each axis stands by itself, but a pipeline may have tensors in its stages. A pipeline needs
a micro-batch for each stage at least. An axis that a person has set is kept as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from aiftrain.plan.legality import layout_problems
from aiftrain.run.layout import ranks_per_node
from aiftrain.run.spec import ParallelSpec, RunSpec

_MOST_STAGES = 8  # of a pipeline
_MOST_EXPERT_RANKS = 64
_NODES_OF_A_GROUP = (1, 2, 4)  # that share out the states, where not all do
_AXES = ("tensor", "pipeline", "sequence", "expert", "shard_group")

Degrees = dict[str, int]


def with_axes(spec: RunSpec) -> Iterator[RunSpec]:
    """`spec` with each choice of other degrees, at the ZeRO stages that are worth it. What is legal alone."""
    if spec.hardware.is_cpu or any(getattr(spec.parallelism, axis) != _UNSET[axis] for axis in _AXES):
        return
    for degrees in _choices(spec):
        for stage in _stages(degrees):
            form = with_strategy(spec, zero_stage=stage, **degrees)
            if _divides(form) and not layout_problems(form):
                yield form


def with_strategy(spec: RunSpec, **changes: int | None) -> RunSpec:
    """`spec` with another strategy."""
    return spec.model_copy(update={"parallelism": spec.parallelism.model_copy(update=changes)})


_UNSET = {axis: ParallelSpec.model_fields[axis].default for axis in _AXES}


def _choices(spec: RunSpec) -> Iterator[Degrees]:
    near = spec.hardware.fast_domain or spec.hardware.devices_per_node
    stages = [1, *_doubled(min(_MOST_STAGES, spec.model.num_layers))]
    for tensor in (1, *_doubled(near)):
        for pipeline in stages:
            if tensor * pipeline > 1 and _micro_batches(spec, tensor * pipeline) >= pipeline:
                yield {"tensor": tensor, "pipeline": pipeline}
    yield from ({"sequence": ranks} for ranks in _doubled(near))
    if spec.model.moe:
        most = min(_MOST_EXPERT_RANKS, spec.model.moe.num_experts)
        yield from ({"expert": ranks} for ranks in _doubled(most))
    yield from ({"shard_group": nodes * ranks_per_node(spec)} for nodes in _NODES_OF_A_GROUP if nodes < spec.nodes)


def _stages(degrees: Degrees) -> tuple[int, ...]:
    """ZeRO stages: 1, which talks least, and 3, which holds least; a pipeline goes with the first alone."""
    if "shard_group" in degrees:
        return (3,)
    return (1,) if degrees.get("pipeline", 1) > 1 else (1, 3)


def _divides(spec: RunSpec) -> bool:
    return spec.nodes * ranks_per_node(spec) % spec.parallelism.ranks_of_a_model == 0


def _micro_batches(spec: RunSpec, ranks_of_a_model: int) -> float:
    """Sequences of a step for each group of ranks that holds a model: the most micro-batches that there can be."""
    return spec.train.global_batch * ranks_of_a_model / (spec.nodes * ranks_per_node(spec))


def _doubled(most: int) -> Iterator[int]:
    """2, 4, 8, ... up to `most`."""
    degree = 2
    while degree <= most:
        yield degree
        degree *= 2
