"""How many layers of each kind a stage of a pipeline holds, for the formulas of memory and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import TypeVar

from aiftrain.run.layout import ParallelLayout

Kind = TypeVar("Kind", bound=Hashable)


def stage_layers(kinds: Sequence[Kind], layout: ParallelLayout) -> Sequence[dict[Kind, float]]:
    """The layers of each stage, counted by kind; `kinds` are those of the whole model's layers.

    Where the layout only says that stages are equal: the most layers that any has, each kind in its share.
    """
    if layout.stages:
        return [dict(Counter(kinds[start:stop])) for start, stop in pairwise(layout.stages)]
    most = -(-len(kinds) // layout.pipeline_parallel) / len(kinds)
    return [{kind: count * most for kind, count in Counter(kinds).items()}] * layout.pipeline_parallel
