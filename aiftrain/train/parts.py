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

from aiftrain.train.mesh import Axis, Mesh


@dataclass(frozen=True)
class Part:
    """Runs [start, stop) of the flattened whole, in the order in which they lie here; `shape` is the whole's.

    `of_tensor`: the ranks of a tensor hold different parts.
    """

    shape: tuple[int, ...]
    runs: tuple[range, ...]
    of_tensor: bool = False

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


def shared_rows(
    shape: tuple[int, ...], axis: Axis, *, stacked: tuple[int, ...], columns: int, matrices: range = range(1)
) -> Part:
    """The part of a parameter whose rows, of `columns` elements each, are shared out over a tensor's `axis`.

    `stacked` are the numbers of rows of the blocks that lie below each other, of which each is shared out by itself:
    queries, keys and values. Of several such matrices, as experts have, those in `matrices` are shared out one by one.
    """
    one = sum(stacked) * columns
    runs = []
    for start in range(matrices.start * one, matrices.stop * one, one):
        for rows in stacked:
            mine = axis.share(rows)
            runs.append(range(start + mine.start * columns, start + mine.stop * columns))
            start += rows * columns
    return Part(shape, tuple(_joined(runs)), of_tensor=axis.size > 1)


def _joined(runs: list[range]) -> Iterator[range]:
    """The same elements in as few runs as can be."""
    start = runs[0].start
    for run, after in zip(runs, [*runs[1:], None], strict=True):
        if after is None or after.start != run.stop:
            yield range(start, run.stop)
            start = run.stop if after is None else after.start


def hold(parameter: nn.Parameter, part: Part) -> nn.Parameter:
    """Mark a parameter as a part of a whole one."""
    parameter.part = part  # type: ignore[attr-defined]
    # For DeepSpeed: the norm is over all ranks' parts.
    parameter.model_parallel = part.of_tensor  # type: ignore[attr-defined]
    return parameter


def hold_experts(parameter: nn.Parameter, part: Part, mesh: Mesh) -> nn.Parameter:
    """Mark a parameter as a part of a whole one that has some experts of all. DeepSpeed asks for the attributes."""
    marks = {
        "part": part,
        "model_parallel": part.of_tensor,
        # Not for the norm: DeepSpeed's optimizer for bf16 counts experts on all ranks of a tensor otherwise.
        "ds_pipe_replicated": mesh.tensor.index > 0 and not part.of_tensor,
        "allreduce": False,
        "group_name": expert_group_name(mesh),
    }
    of_stage_3 = {
        "placement_family": "autoep_expert",
        "partition_group_name": expert_group_name(mesh),
        "partition_process_group": mesh.same_experts.group,
    }
    for name, value in (marks | {f"ds_zero_{key}": value for key, value in of_stage_3.items()}).items():
        setattr(parameter, name, value)
    return parameter


def expert_group_name(mesh: Mesh) -> str:
    """What DeepSpeed calls the ranks that share out experts."""
    return f"ep_size_{mesh.expert.size}"


def part_of(parameter: nn.Parameter) -> Part:
    """What a parameter holds: the part that it is marked as, or all of it."""
    part: Part | None = getattr(parameter, "part", None)
    if part is not None:
        return part
    shape = tuple(getattr(parameter, "ds_shape", parameter.shape))  # under ZeRO 3 it is a part of itself
    return Part(shape, (range(prod(shape)),))


def is_part(parameter: nn.Parameter) -> bool:
    """Whether the ranks of a tensor hold different parts of it."""
    return part_of(parameter).of_tensor


def is_expert(parameter: nn.Parameter) -> bool:
    """Whether ranks that share out the batch hold different parts of it."""
    return not getattr(parameter, "allreduce", True)
