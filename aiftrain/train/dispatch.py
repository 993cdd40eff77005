"""Tokens on their way to the experts that they chose, wherever those are, and back.

Experts are shared out over the ranks of an axis in order, so tokens sorted by expert are sorted by rank. None is left
behind for want of room: ranks tell each other first how many are to come.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aiftrain.train.exchange import exchange, exchanged
from aiftrain.train.mesh import Axis


class Dispatch:
    """The ways of one layer's tokens. `chosen` [tokens, experts_per_token]; expert `experts` means nowhere."""

    def __init__(self, chosen: Tensor, experts: int, axis: Axis) -> None:
        self.shape, self.axis = chosen.shape, axis
        self.order = chosen.flatten().argsort(stable=True)
        self.back_in_order = self.order.argsort()
        going = chosen.flatten().bincount(minlength=experts + 1)[:experts].view(axis.size, -1)
        coming = going if axis.size == 1 else exchanged(going, axis)  # [ranks, own experts]
        # One look at the numbers for all: it waits for the device.
        self.sent, self.received, self.counts = _lists(going.sum(1), coming.sum(1), coming.sum(0))
        self.by_expert = _sorted_by_expert(coming) if axis.size > 1 else None

    def there(self, tokens: Tensor) -> list[Tensor]:
        """tokens [tokens, hidden] -> for each of this rank's experts those that chose it, [any number, hidden]."""
        rows = tokens.repeat_interleave(self.shape[1], 0)[self.order[: sum(self.sent)]]
        if self.by_expert is not None:
            rows = exchange(rows, self.axis, self.sent, self.received)[self.by_expert]
        return list(rows.split(self.counts))

    def back(self, results: list[Tensor]) -> Tensor:
        """What experts made of their tokens -> [tokens, experts_per_token, hidden], zeros where nothing was chosen."""
        rows = torch.cat(results)
        if self.by_expert is not None:
            rows = exchange(rows[self.by_expert.argsort()], self.axis, self.received, self.sent)
        nowhere = len(self.order) - len(rows)
        if nowhere:
            rows = torch.cat([rows, rows.new_zeros(nowhere, rows.shape[1])])
        return rows[self.back_in_order].view(*self.shape, rows.shape[1])


def _lists(*counts: Tensor) -> list[list[int]]:
    return [part.tolist() for part in torch.cat(counts).cpu().split([len(each) for each in counts])]


def _sorted_by_expert(coming: Tensor) -> Tensor:
    """What comes lies rank by rank, and there expert by expert; the order that has it expert by expert."""
    ranks, experts = coming.shape
    expert = torch.arange(experts, device=coming.device).repeat(ranks)
    return expert.repeat_interleave(coming.flatten()).argsort(stable=True)
