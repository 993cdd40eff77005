"""Work on whole matrices where each rank holds pieces: each matrix is put together on one rank, and taken apart again.

Matrices that a rank holds whole it keeps. Of the others each goes to a rank that holds most of it, equally many
operations to each, so that they are worked on once and not on every rank. Two all-to-alls carry each piece there and
back: twice what a rank holds, where an all-gather would carry everything to all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from aiftrain.train.optimizers.matrices import Matrix

_AT_ONCE = 2**26  # elements a rank receives at one time, about

Work = Callable[[Tensor], Tensor]  # [rows, columns] -> the same


@dataclass(frozen=True)
class Piece:
    """`count` elements of a matrix, from its element `start` on; here they lie at `offset` of a flat tensor."""

    matrix: Matrix
    start: int
    count: int
    offset: int


class Exchange:
    """Applies `Work` to the matrices of which `pieces` lie in a flat tensor here, others on the ranks of `group`."""

    def __init__(self, pieces: Sequence[Piece], group: ProcessGroup | None) -> None:
        self._group = group
        self._whole = [piece for piece in pieces if piece.count == len(piece.matrix)]
        everyone = _gathered([piece for piece in pieces if piece.count < len(piece.matrix)], group)
        self._rounds = list(_rounds(everyone, 0 if group is None else dist.get_rank(group)))

    def apply(self, flat: Tensor, work: Work, dtype: torch.dtype) -> None:
        """Replace what `flat` holds of each matrix by its part of `work` on the whole, done in `dtype`."""
        for piece in self._whole:
            here = flat.narrow(0, piece.offset, piece.count).view(piece.matrix.rows, piece.matrix.columns)
            here.copy_(work(here.to(dtype)))
        for part in self._rounds:
            part.apply(flat, work, dtype, self._group)


@dataclass(frozen=True)
class _Round:
    """Matrices that are exchanged at one time: this rank's pieces, by the rank they go to, and those it works on."""

    sent: list[list[Piece]]  # to each rank
    held: list[list[Piece]]  # from each rank

    def apply(self, flat: Tensor, work: Work, dtype: torch.dtype, group: ProcessGroup | None) -> None:
        sent_sizes, held_sizes = _sizes(self.sent), _sizes(self.held)
        sent = torch.empty(sum(sent_sizes), dtype=dtype, device=flat.device)
        held = torch.empty(sum(held_sizes), dtype=dtype, device=flat.device)
        for piece, place in _places(self.sent, sent):
            place.copy_(flat.narrow(0, piece.offset, piece.count))
        dist.all_to_all_single(held, sent, held_sizes, sent_sizes, group=group)
        _work_on(_by_matrix(self.held, held), work)
        dist.all_to_all_single(sent, held, sent_sizes, held_sizes, group=group)
        for piece, place in _places(self.sent, sent):
            flat.narrow(0, piece.offset, piece.count).copy_(place)


def _work_on(matrices: dict[Matrix, list[Tensor]], work: Work) -> None:
    """Each matrix is its pieces, in order."""
    for matrix, parts in matrices.items():
        done = work(torch.cat(parts).view(matrix.rows, matrix.columns)).reshape(-1)
        for part, values in zip(parts, done.split([part.numel() for part in parts]), strict=True):
            part.copy_(values)


def _by_matrix(pieces: list[list[Piece]], buffer: Tensor) -> dict[Matrix, list[Tensor]]:
    """Where the pieces of each matrix lie, in order."""
    matrices: dict[Matrix, list[Tensor]] = {}
    for piece, place in sorted(_places(pieces, buffer), key=lambda found: found[0].start):
        matrices.setdefault(piece.matrix, []).append(place)
    return matrices


def _places(pieces: list[list[Piece]], buffer: Tensor) -> Iterator[tuple[Piece, Tensor]]:
    """The pieces, one after the other in a buffer."""
    position = 0
    for piece in (piece for of_rank in pieces for piece in of_rank):
        yield piece, buffer.narrow(0, position, piece.count)
        position += piece.count


def _sizes(pieces: list[list[Piece]]) -> list[int]:
    return [sum(piece.count for piece in of_rank) for of_rank in pieces]


def _gathered(pieces: list[Piece], group: ProcessGroup | None) -> list[list[Piece]]:
    """What each rank of the group holds."""
    if group is None or dist.get_world_size(group) == 1:
        return [pieces]
    everyone: list[list[Piece]] = [[] for _ in range(dist.get_world_size(group))]
    dist.all_gather_object(everyone, pieces, group=group)
    return everyone


def _rounds(everyone: list[list[Piece]], rank: int) -> Iterator[_Round]:
    """The same rounds on all ranks, as this one sees them."""
    workers = _workers(everyone)
    for batch in _batches(sorted(workers), _AT_ONCE * len(everyone)):
        pieces = [[piece for piece in of_rank if piece.matrix in batch] for of_rank in everyone]
        ranks = range(len(everyone))
        sent = [[piece for piece in pieces[rank] if workers[piece.matrix] == to] for to in ranks]
        yield _Round(sent, [[piece for piece in pieces[source] if workers[piece.matrix] == rank] for source in ranks])


def _workers(everyone: list[list[Piece]]) -> dict[Matrix, int]:
    """The rank that works on each matrix: of those that hold most of it, the one with the least to do so far."""
    holders: dict[Matrix, dict[int, int]] = {}
    for rank, pieces in enumerate(everyone):
        for piece in pieces:
            holders.setdefault(piece.matrix, {})[rank] = piece.count
    burden = [0] * len(everyone)
    workers = {}
    for matrix in sorted(holders, key=lambda m: (-_operations(m), m)):
        most = max(holders[matrix].values())
        worker = min((rank for rank, count in holders[matrix].items() if count == most), key=lambda rank: burden[rank])
        burden[worker] += _operations(matrix)
        workers[matrix] = worker
    return workers


def _operations(matrix: Matrix) -> int:
    """In proportion: products of the shorter side's square with the matrix."""
    return len(matrix) * min(matrix.rows, matrix.columns)


def _batches(matrices: list[Matrix], limit: int) -> Iterator[set[Matrix]]:
    """Consecutive matrices of at most `limit` elements together, but at least one."""
    batch: set[Matrix] = set()
    for matrix in matrices:
        if batch and sum(map(len, batch)) + len(matrix) > limit:
            yield batch
            batch = set()
        batch.add(matrix)
    if batch:
        yield batch
