"""Tensor parallelism: matrices shared out over ranks (Megatron-LM, arXiv 1909.08053, section 3).

A layer enters with `copy_to` and leaves with `reduce_from`: between them each rank works on its own heads or columns,
outside all ranks of the tensor hold the same. A weight that all hold and that works on a rank's own part passes through
`copy_to` as well, so that its gradient is the sum of all ranks'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed._functional_collectives as collectives
import torch.nn.functional as F
from torch import Tensor, nn

from aiftrain.train.mesh import Axis
from aiftrain.train.parts import hold, shared_rows


def copy_to(x: Tensor, axis: Axis) -> Tensor:
    """x as it is; its gradient is the sum over the axis."""
    return x if axis.size == 1 else _CopyTo.apply(x, axis)  # type: ignore[no-untyped-call]


def reduce_from(x: Tensor, axis: Axis) -> Tensor:
    """The sum of x over the axis; its gradient is the gradient."""
    return x if axis.size == 1 else _ReduceFrom.apply(x, axis)  # type: ignore[no-untyped-call]


def summed(x: Tensor, axis: Axis) -> Tensor:
    """The sum of x over the axis, without a gradient."""
    assert axis.group is not None
    total: Tensor = collectives.wait_tensor(collectives.all_reduce(x.contiguous(), "sum", axis.group))
    return total


def gathered(x: Tensor, axis: Axis) -> Tensor:
    """[size, ...]: each rank's x, without a gradient."""
    assert axis.group is not None
    parts: Tensor = collectives.wait_tensor(collectives.all_gather_tensor(x.contiguous()[None], 0, axis.group))
    return parts


class _CopyTo(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: Axis) -> Tensor:
        ctx.axis = axis
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return summed(gradient, ctx.axis), None


class _ReduceFrom(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor, axis: Axis) -> Tensor:
        return summed(x, axis)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # x, weight [out, in], bias, as `linear` takes them


class SplitLinear(nn.Module):
    """x @ weight.T + bias, of whose outputs each rank has a part of every block in `stacked`. weight [out, in]."""

    def __init__(self, inputs: int, stacked: tuple[int, ...], axis: Axis, *, bias: bool) -> None:
        super().__init__()
        outputs = sum(stacked)
        mine = outputs // axis.size
        self.weight = nn.Parameter(torch.empty(mine, inputs))
        self.bias = nn.Parameter(torch.empty(mine)) if bias else None
        self.product: Product = F.linear
        if axis.size > 1:
            hold(self.weight, shared_rows((outputs, inputs), axis, stacked=stacked, columns=inputs))
            if self.bias is not None:
                hold(self.bias, shared_rows((outputs,), axis, stacked=stacked, columns=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.weight, self.bias)


class JoinLinear(nn.Module):
    """x @ weight + bias, of whose inputs each rank has a part; the sum over the ranks. weight [in, out]."""

    def __init__(self, inputs: int, outputs: int, axis: Axis, *, bias: bool) -> None:
        super().__init__()
        self.axis = axis
        self.weight = nn.Parameter(torch.empty(inputs // axis.size, outputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.product: Product = F.linear
        if axis.size > 1:
            hold(self.weight, shared_rows((inputs, outputs), axis, stacked=(inputs,), columns=outputs))

    def forward(self, x: Tensor) -> Tensor:
        if self.axis.size == 1:
            return self.product(x, self.weight.T, self.bias)
        out = reduce_from(self.product(x, self.weight.T, None), self.axis)
        return out if self.bias is None else out + self.bias


class SplitEmbedding(nn.Module):
    """The table of tokens, of which each rank has some rows. weight [vocabulary, hidden]."""

    def __init__(self, vocabulary: int, hidden: int, axis: Axis) -> None:
        super().__init__()
        self.axis, self.rows = axis, axis.share(vocabulary)
        self.weight = nn.Parameter(torch.empty(len(self.rows), hidden))
        if axis.size > 1:
            hold(self.weight, shared_rows((vocabulary, hidden), axis, stacked=(vocabulary,), columns=hidden))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [...] -> [..., hidden]."""
        if self.axis.size == 1:
            return F.embedding(tokens, self.weight)
        places = tokens - self.rows.start
        elsewhere = (places < 0) | (places >= len(self.rows))
        found = F.embedding(places.masked_fill(elsewhere, 0), self.weight)
        return reduce_from(found.masked_fill(elsewhere[..., None], 0.0), self.axis)


class HeadNorm(nn.RMSNorm):
    """RMSNorm of each head. All ranks of a tensor have its weight, each for its own heads."""

    def __init__(self, size: int, eps: float, axis: Axis) -> None:
        super().__init__(size, eps=eps)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, copy_to(self.weight, self.axis), self.eps)
