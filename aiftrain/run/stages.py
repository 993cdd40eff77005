"""Which layers go to which stage of a pipeline: what they cost, and the cut whose slowest stage is the quickest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate

from aiftrain.run.model import ModelSpec

_Cut = tuple[float, tuple[int, ...]]  # what is to be small, and the bounds


@lru_cache(maxsize=256)
def stage_bounds(model: ModelSpec, stages: int, sequence_length: int) -> tuple[int, ...]:
    """The first layer of each stage, and at the end the number of layers; empty where there is nothing to cut.

    A layer costs its FLOPs a token; the last stage has the output projection besides. The look-up in the embedding,
    norms and the loss read and write memory but multiply no matrices: they count as nothing.
    """
    if not 1 < stages <= model.num_layers:
        return ()
    costs = [round(model.layer_flops_per_token(layer, sequence_length)) for layer in range(model.num_layers)]
    return cut(costs, stages, model.head_flops_per_token)


def cut(costs: Sequence[int], stages: int, tail: int = 0) -> tuple[int, ...]:
    """Bounds of `stages` runs of one or more costs each, of which the last costs `tail` besides.

    A pipeline goes at the pace of its slowest stage, so the dearest run is as cheap as it can be. Among the cuts that
    have that in common it is the most even one (least sum of squares), and then the one whose first runs are shortest:
    early stages hold most micro-batches in flight, and so most memory.
    """
    dearest, _ = _best(costs, stages, tail, max)
    return _best(costs, stages, tail, lambda total, run: total + run**2 if run <= dearest else math.inf)[1]


def _best(costs: Sequence[int], stages: int, tail: int, add: Callable[[float, int], float]) -> _Cut:
    """The cut with the least value, to which each run's cost is added (Bellman's recursion over where a run ends)."""
    sums, count = [0, *accumulate(costs)], len(costs)
    best: dict[int, _Cut] = {0: (0, (0,))}  # by where the last run so far ends
    for stage in range(1, stages + 1):
        last = stage == stages
        ends = [count] if last else range(stage, count - (stages - stage) + 1)  # one cost at least for each run to come
        best = {
            end: min(
                (add(value, sums[end] - sums[start] + (tail if last else 0)), (*bounds, end))
                for start, (value, bounds) in best.items()
                if start < end
            )
            for end in ends
        }
    return best[count]
