"""Which part of a parameter a rank holds, in terms of the whole one.

Checkpoints know whole parameters, flattened. A rank of a tensor- or expert-parallel group holds some runs of one: rows
of a matrix, or rows of each of the matrices that are stacked in it. So that a run is long, what is shared out is always
the first dimension of a matrix: that is why some are stored as [in, out].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from aiftrain.train.mesh import Axis


@dataclass(frozen=True)
class Part:
    """Runs [start, stop) of the flattened whole, in the order in which they lie here; `shape` is the whole's."""

    shape: tuple[int, ...]
    runs: tuple[range, ...]

    def cut(self, start: int, count: int) -> Iterator[tuple[int, range]]:
        """Elements [start, start + count) of what lies here: where each run begins here, and where in the whole."""
        here = 0
        for run in self.runs:
            first, last = max(start, here), min(start + count, here + len(run))
            if first < last:
                yield first, run[first - here : last - here]
            here += len(run)

    def of(self, whole: Tensor) -> Tensor:
        """This part of a whole tensor, flattened."""
        flat = whole.flatten()
        return torch.cat([flat[run.start : run.stop] for run in self.runs])


def shared_rows(shape: tuple[int, ...], axis: Axis, *, stacked: tuple[int, ...], columns: int) -> Part:
    """The part of a parameter whose rows, of `columns` elements each, are shared out over `axis`.

    `stacked` are the numbers of rows of the blocks that lie below each other, of which each is shared out by itself:
    queries, keys and values. A parameter of several such matrices, as experts have, is shared out matrix by matrix.
    """
    one = sum(stacked) * columns
    runs = []
    for start in range(0, prod(shape), one):
        for rows in stacked:
            mine = axis.share(rows)
            runs.append(range(start + mine.start * columns, start + mine.stop * columns))
            start += rows * columns
    return Part(shape, tuple(runs))


def hold(parameter: nn.Parameter, part: Part) -> nn.Parameter:
    """Mark a parameter as a part of a whole one."""
    parameter.part = part  # type: ignore[attr-defined]
    parameter.model_parallel = True  # type: ignore[attr-defined]  # DeepSpeed: the norm is over all ranks' parts
    return parameter


def part_of(parameter: nn.Parameter) -> Part:
    """What a parameter holds: the part that it is marked as, or all of it."""
    part: Part | None = getattr(parameter, "part", None)
    if part is not None:
        return part
    shape = tuple(getattr(parameter, "ds_shape", parameter.shape))  # under ZeRO 3 it is a part of itself
    return Part(shape, (range(prod(shape)),))


def is_part(parameter: nn.Parameter) -> bool:
    return hasattr(parameter, "part")
