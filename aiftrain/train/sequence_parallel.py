"""Sequence parallelism (DeepSpeed-Ulysses, arXiv 2309.14509): the ranks of an axis share out each sequence.

Outside attention a rank works on its own part of every sequence. Inside it has whole sequences and a part of the heads:
an all-to-all turns one into the other, and another one back.
"""

from __future__ import annotations

from math import gcd

from torch import Tensor

from aiftrain.train.exchange import exchange
from aiftrain.train.mesh import Axis


def to_heads(x: Tensor, axis: Axis) -> Tensor:
    """[batch, heads, part, head_dim] of this rank's tokens -> [batch, own heads, length, head_dim] of all.

    Fewer heads than can be shared out, as of keys and values, are repeated just enough; each rank then has those that
    its queries look at.
    """
    if axis.size == 1:
        return x
    repeats = axis.size // gcd(axis.size, x.shape[1])
    if repeats > 1:
        x = x.repeat_interleave(repeats, 1)
    parts = x.unflatten(1, (axis.size, -1)).movedim(1, 0)
    return exchange(parts, axis).movedim(0, 2).flatten(2, 3)


def to_tokens(x: Tensor, axis: Axis) -> Tensor:
    """[batch, own heads, length, head_dim] of all tokens -> [batch, heads, part, head_dim] of this rank's."""
    if axis.size == 1:
        return x
    parts = x.unflatten(2, (axis.size, -1)).movedim(2, 0)
    return exchange(parts, axis).movedim(0, 1).flatten(1, 2)
