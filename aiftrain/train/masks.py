"""What attention adds to its scores: causality, borders of documents, windows, and ALiBi's slopes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aiftrain.run.model import ModelSpec
from aiftrain.train.mesh import ALONE, Mesh


class Masks(NamedTuple):
    """Added to the scores [batch, heads, length, length], whose first two dimensions may be 1. None: causal only."""

    whole: Tensor | None  # for layers that look back to the beginning
    window: Tensor | None  # for layers with a sliding window


def make_masks(spec: ModelSpec, x: Tensor, documents: Tensor | None, mesh: Mesh = ALONE) -> Masks:
    """The masks of a forward pass over this rank's part of the tokens, x [batch, part, hidden].

    With or without documents [batch, length] of all tokens. Where masks differ from head to head they are for the heads
    that the rank has in attention. On a CPU there always is one, because `attend` needs it there.
    """
    length, device = x.shape[1] * mesh.sequence.size, x.device
    windowed = spec.sliding_window is not None and spec.sliding_window < length
    if documents is None:
        if device.type != "cpu" and not windowed and spec.positions != "alibi":
            return Masks(None, None)
        documents = torch.zeros(1, length, dtype=torch.int32, device=device)
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else x.dtype
    heads = own_heads(spec, mesh)
    slopes = alibi(spec.num_heads, length, device, heads).to(dtype) if spec.positions == "alibi" else None
    whole = _with_slopes(document_mask(documents, dtype), slopes)
    window = _with_slopes(document_mask(documents, dtype, spec.sliding_window), slopes) if windowed else whole
    return Masks(whole, window)


def _with_slopes(mask: Tensor, slopes: Tensor | None) -> Tensor:
    return mask if slopes is None else mask + slopes


def document_mask(documents: Tensor, dtype: torch.dtype, window: int | None = None) -> Tensor:
    """documents [batch, length] -> [batch, 1, length, length]: 0 where a token may look, minus infinity elsewhere.

    A token sees `window` tokens, itself the last of them; None: all before it in its document.
    """
    length = documents.shape[1]
    same = documents[:, :, None] == documents[:, None, :]
    reachable = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    if window is not None:
        reachable = reachable.triu(1 - window)
    allowed = same & reachable
    return torch.zeros(allowed.shape, dtype=dtype, device=documents.device).masked_fill_(~allowed, -torch.inf)[:, None]


def own_heads(spec: ModelSpec, mesh: Mesh) -> range:
    """The heads that a rank has in attention: of those of its place in a tensor, its place in a sequence's."""
    of_tensor = mesh.tensor.share(spec.num_heads)
    of_both = mesh.sequence.share(len(of_tensor))
    return of_tensor[of_both.start : of_both.stop]


def alibi(heads: int, length: int, device: torch.device, own: range) -> Tensor:
    """[own heads, length, length]: minus the distance between tokens, times each head's slope (arXiv 2108.12409)."""
    positions = torch.arange(length, device=device, dtype=torch.float32)
    distances = positions[None, :] - positions[:, None]
    slopes = alibi_slopes(heads)[own.start : own.stop]
    return torch.tensor(slopes, device=device)[:, None, None] * distances


def alibi_slopes(heads: int) -> list[float]:
    """A geometric series from 2^(-8/n) on; between powers of two, every other slope of the next one's as well."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    between = [2 ** (-4 * (head + 1) / power) for head in range(0, 2 * (heads - power), 2)]
    return slopes + between
