"""All-to-all: every rank of an axis sends each of the others its part, with a gradient that goes the same way back."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed._functional_collectives as collectives
from torch import Tensor

from aiftrain.train.mesh import Axis


def exchange(x: Tensor, axis: Axis, sent: list[int] | None = None, received: list[int] | None = None) -> Tensor:
    """Rows of x [rows, ...] to the ranks of the axis: the first `sent[0]` to the first of them, and so on.

    Gives what they send to this rank, in their order, `received[i]` rows from the i-th. Without numbers all send each
    other equally many.
    """
    if axis.size == 1:
        return x
    got: Tensor = _Exchange.apply(x, axis, sent, received)  # type: ignore[no-untyped-call]
    return got


def exchanged(x: Tensor, axis: Axis, sent: list[int] | None = None, received: list[int] | None = None) -> Tensor:
    """The same without a gradient."""
    assert axis.group is not None
    work = collectives.all_to_all_single(x.contiguous(), received, sent, axis.group)
    got: Tensor = collectives.wait_tensor(work)
    return got


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: Axis, sent: list[int] | None, received: list[int] | None) -> Tensor:
        ctx.back = axis, received, sent
        return exchanged(x, axis, sent, received)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return exchanged(gradient, *ctx.back), None, None, None
