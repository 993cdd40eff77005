"""What attention adds to its scores: causality, borders of documents, windows, and ALiBi's slopes."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from aiftrain.run.model import ModelSpec
from aiftrain.train.flex import BlockMask, block_mask
from aiftrain.train.mesh import ALONE, Mesh
from aiftrain.train.varlen import Documents, FlatKernel, find_documents

# Dense: added to the scores [batch, heads, length, length], whose first two dimensions may be 1. None: causal only.
Mask = Tensor | Documents | BlockMask | None


class Kernel(NamedTuple):
    """What attention is computed with: kernels.py chooses one. `flat` is there where it takes documents end to end."""

    name: Literal["dense", "flex", "varlen", "flash-attn"] = "dense"
    flat: FlatKernel | None = None


DENSE = Kernel()


class Masks(NamedTuple):
    """What each kind of layer needs, in the form that the kernel takes."""

    whole: Mask  # for layers that look back to the beginning
    window: Mask  # for layers with a sliding window


def make_masks(
    spec: ModelSpec, x: Tensor, documents: Tensor | None, mesh: Mesh = ALONE, kernel: Kernel = DENSE
) -> Masks:
    """The masks of a forward pass over this rank's part of the tokens, x [batch, part, hidden].

    With or without documents [batch, length] of all tokens; they may lie on the CPU whatever the device: kernels that
    need their bounds need not wait for it then. Where masks differ from head to head they are for the heads that the
    rank has in attention.
    """
    length = x.shape[1] * mesh.sequence.size
    windowed = spec.sliding_window is not None and spec.sliding_window < length
    window = spec.sliding_window if windowed else None
    slopes = _own_slopes(spec, mesh, x.device) if spec.positions == "alibi" else None
    if kernel.name == "dense":
        return _dense(x, length, documents, window, slopes)
    if documents is None:
        documents = torch.zeros(x.shape[0], length, dtype=torch.int32)
    if kernel.flat is None:
        return _by_blocks(x, documents, window, slopes)
    bounds, longest = find_documents(documents)
    whole = Documents(kernel.flat, bounds.to(x.device, non_blocking=True), longest, None, slopes)
    return Masks(whole, whole._replace(window=window))


def _own_slopes(spec: ModelSpec, mesh: Mesh, device: torch.device) -> Tensor:
    heads = own_heads(spec, mesh)
    return torch.tensor(alibi_slopes(spec.num_heads)[heads.start : heads.stop], device=device)


def _by_blocks(x: Tensor, documents: Tensor, window: int | None, slopes: Tensor | None) -> Masks:
    documents = documents.to(x.device)
    slopes = None if slopes is None else slopes.to(_score_type(x))
    whole = block_mask(documents, None, slopes)
    return Masks(whole, whole if window is None else block_mask(documents, window, slopes))


def _dense(x: Tensor, length: int, documents: Tensor | None, window: int | None, slopes: Tensor | None) -> Masks:
    """On a CPU there always is one, because `attend` needs it there."""
    device = x.device
    if documents is None:
        if device.type != "cpu" and window is None and slopes is None:
            return Masks(None, None)
        documents = torch.zeros(1, length, dtype=torch.int32)
    documents, dtype = documents.to(device), _score_type(x)
    added = None if slopes is None else alibi(slopes, length).to(dtype)
    whole = _with_slopes(document_mask(documents, dtype), added)
    return Masks(whole, whole if window is None else _with_slopes(document_mask(documents, dtype, window), added))


def _score_type(x: Tensor) -> torch.dtype:
    """Of queries, keys and values."""
    device = x.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else x.dtype


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


def alibi(slopes: Tensor, length: int) -> Tensor:
    """[heads, length, length]: minus the distance between two tokens, times each head's slope (arXiv 2108.12409)."""
    positions = torch.arange(length, device=slopes.device, dtype=torch.float32)
    distances = positions[None, :] - positions[:, None]
    return slopes[:, None, None] * distances


def alibi_slopes(heads: int) -> list[float]:
    """A geometric series from 2^(-8/n) on; between powers of two, every other slope of the next one's as well."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    between = [2 ** (-4 * (head + 1) / power) for head in range(0, 2 * (heads - power), 2)]
    return slopes + between
