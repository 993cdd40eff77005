"""How many elements DeepSpeed gathers or reduces at one time, and how many stay gathered: by model, ranks, links.

A collective over n ranks pays for n hops whatever its size. Buckets are so large that the hops are a tenth of the time,
and no larger than memory and overlap allow: while one travels, the gradients of the next must still be computed.
"""

from __future__ import annotations

from aiftrain.plan.memory import memory_per_rank
from aiftrain.plan.throughput.collectives import ASSUMED_FAR, ASSUMED_NEAR
from aiftrain.plan.throughput.constants import shipped
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.model import ModelSpec
from aiftrain.run.spec import RunSpec

_WORTH = 10.0  # times the hops' seconds that a bucket takes to travel
_FEWEST = 5_000_000  # elements: below it kernels and Python take longer than the network
_PARTS = 8  # buckets that the gradients of one backward pass make at least, so that most can hide behind the rest
_MEMORY = 0.01  # of a rank's memory, for one bucket
_LIVE = 1_000_000_000  # DeepSpeed's default
_LIVE_MEMORY = 0.1  # of a rank's memory, for weights that stay gathered


def bucket_elements(spec: RunSpec, layout: ParallelLayout, element: int) -> int:
    """Elements of one bucket of `element` bytes each; what the spec says where it does."""
    asked = spec.parallelism.bucket_millions
    if asked is not None:
        return int(asked * 1e6)
    worth = _WORTH * shipped().constants.hop_seconds * layout.sharers * _link(spec) / element
    most = min(_own_parameters(spec.model, layout) / _PARTS, _within(spec, _MEMORY) / element)
    return max(_FEWEST, int(min(worth, most)))


def live_elements(spec: RunSpec, element: int) -> int:
    """Stage 3: weights that may stay gathered from their use in the forward pass until that in the backward pass."""
    return int(min(_LIVE, _within(spec, _LIVE_MEMORY) / element))


def prefetch_elements(spec: RunSpec, layout: ParallelLayout, element: int) -> int:
    """Stage 3: weights gathered ahead of their use. One layer's, which travel while the layer before it computes."""
    layers = range(spec.model.num_layers)
    one = max(map(spec.model.layer_parameters, layers)) // layout.tensor_parallel
    return min(one, live_elements(spec, element) // 2)


def _own_parameters(model: ModelSpec, layout: ParallelLayout) -> float:
    return model.parameters / (layout.tensor_parallel * layout.pipeline_parallel)


def _link(spec: RunSpec) -> float:
    """Bytes a second that a device sends on the slowest link that the job uses."""
    hardware = spec.hardware
    if spec.nodes > 1:
        return (hardware.inter_node_gb_per_s or ASSUMED_FAR) * 1e9
    return (hardware.intra_node_gb_per_s or ASSUMED_NEAR) * 1e9


def _within(spec: RunSpec, share: float) -> float:
    """Bytes that are `share` of a rank's memory; where nobody documents it, no limit."""
    memory = memory_per_rank(spec)
    return float("inf") if memory is None else share * memory
