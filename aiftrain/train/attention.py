"""Attention: grouped queries, multi-head latent attention, rotary positions.

Rotary embedding is the half-split form, so that exported weights need no permutation.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aiftrain.run.model import ModelSpec
from aiftrain.run.shape import LatentSpec
from aiftrain.train.flex import BlockMask, attend_by_blocks
from aiftrain.train.masks import Mask, Masks
from aiftrain.train.mesh import ALONE, Axis, Mesh
from aiftrain.train.sequence_parallel import to_heads, to_tokens
from aiftrain.train.tensor_parallel import HeadNorm, JoinLinear, SplitLinear, copy_to
from aiftrain.train.varlen import Documents, attend_by_document

Rotary = tuple[Tensor, Tensor]  # cosines and sines, [length, rotary size] each

_BLOCKS, _BLOCKS_PAY_FROM = 4, 512  # attention on a CPU; measured: 17 % less time at 512, 31 % at 1,024


def attention(spec: ModelSpec, layer: int, mesh: Mesh = ALONE) -> nn.Module:
    """The attention of layer `layer`, counted from 0."""
    return Attention(spec, layer, mesh) if spec.latent is None else LatentAttention(spec, spec.latent, layer, mesh)


class Attention(nn.Module):
    """Causal self-attention of `num_heads` queries over `num_kv_heads` keys and values, shared out by heads."""

    def __init__(self, spec: ModelSpec, layer: int, mesh: Mesh) -> None:
        super().__init__()
        self.spec, self.tensor, self.sequence = spec, mesh.tensor, mesh.sequence
        self.turns, self.windowed = spec.turns(layer), spec.has_window(layer)
        stacked = (spec.query_size, spec.kv_size, spec.kv_size)
        self.qkv = SplitLinear(spec.hidden_size, stacked, mesh.tensor, bias=spec.qkv_bias)
        self.output = JoinLinear(spec.query_size, spec.hidden_size, mesh.tensor, bias=spec.output_bias)
        if spec.qk_norm:
            self.query_norm = HeadNorm(spec.head_size, spec.norm_eps, mesh.tensor)
            self.key_norm = HeadNorm(spec.head_size, spec.norm_eps, mesh.tensor)

    def forward(self, x: Tensor, rotary: Rotary, masks: Masks) -> Tensor:
        """x [batch, length, hidden]."""
        query, key, value = self._heads(copy_to(x, self.tensor))
        if self.spec.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        if self.turns:
            query, key = rotate(query, rotary), rotate(key, rotary)
        mixed = attend_together(query, key, value, masks.window if self.windowed else masks.whole, self.sequence)
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        spec = self.spec
        sizes = [size // self.tensor.size for size in (spec.query_size, spec.kv_size, spec.kv_size)]
        query, key, value = (
            part.unflatten(-1, (-1, spec.head_size)).transpose(1, 2) for part in self.qkv(x).split(sizes, dim=-1)
        )
        return query, key, value


class LatentAttention(nn.Module):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1.2 and appendix C).

    `down` gives the small vector of keys and values and the part of the keys that turns, which all heads share.
    Heads are shared out over the ranks of a tensor; what comes before them each rank computes whole.
    """

    def __init__(self, spec: ModelSpec, latent: LatentSpec, layer: int, mesh: Mesh) -> None:
        super().__init__()
        self.spec, self.latent, self.tensor, self.sequence = spec, latent, mesh.tensor, mesh.sequence
        self.turns, self.windowed = spec.turns(layer), spec.has_window(layer)
        if latent.query_rank:
            self.query_down = nn.Linear(spec.hidden_size, latent.query_rank, bias=False)
            self.query_norm = nn.RMSNorm(latent.query_rank, eps=spec.norm_eps)
        self.query = SplitLinear(latent.query_rank or spec.hidden_size, (spec.query_size,), mesh.tensor, bias=False)
        self.down = nn.Linear(spec.hidden_size, latent.kv_rank + latent.rope_dim, bias=False)
        self.down_norm = nn.RMSNorm(latent.kv_rank, eps=spec.norm_eps)
        both = spec.num_heads * (latent.nope_dim + latent.value_dim)
        self.up = SplitLinear(latent.kv_rank, (both,), mesh.tensor, bias=False)
        self.output = JoinLinear(spec.mixed_size, spec.hidden_size, mesh.tensor, bias=spec.output_bias)

    def forward(self, x: Tensor, rotary: Rotary, masks: Masks) -> Tensor:
        """x [batch, length, hidden]."""
        latent, heads = self.latent, self.spec.num_heads // self.tensor.size
        query = self.query(copy_to(self.query_norm(self.query_down(x)) if latent.query_rank else x, self.tensor))
        small, shared = self.down(x).split([latent.kv_rank, latent.rope_dim], dim=-1)
        shared = copy_to(shared, self.tensor)
        query = query.unflatten(-1, (heads, -1)).transpose(1, 2)
        key_value = self.up(copy_to(self.down_norm(small), self.tensor)).unflatten(-1, (heads, -1)).transpose(1, 2)
        still, turning = query.split([latent.nope_dim, latent.rope_dim], dim=-1)
        key, value = key_value.split([latent.nope_dim, latent.value_dim], dim=-1)
        shared = shared[:, None]
        if self.turns:
            turning, shared = rotate(turning, rotary), rotate(shared, rotary)
        query = torch.cat([still, turning], dim=-1)
        key = torch.cat([key, shared.expand(-1, heads, -1, -1)], dim=-1)
        mixed = attend_together(query, key, value, masks.window if self.windowed else masks.whole, self.sequence)
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return out


def attend_together(query: Tensor, key: Tensor, value: Tensor, mask: Mask, sequence: Axis) -> Tensor:
    """Causal attention, [batch, heads, length, head_dim] each, where queries may have more heads than keys and values.

    The ranks of `sequence` share out the length; `mask` is for all of it, and for the heads that a rank gets inside.
    """
    query, key, value = (to_heads(x, sequence) for x in (query, key, value))
    return to_tokens(attend(query, key, value, mask), sequence)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
    """Causal attention, [batch, heads, length, head_dim] each. Keys and values may be fewer, each for some queries."""
    if isinstance(mask, Documents):
        return attend_by_document(query, key, value, mask)
    if isinstance(mask, BlockMask):
        return attend_by_blocks(query, key, value, mask)
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    return _attend_densely(query, key, value, mask)


def _attend_densely(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """With a mask of every pair of tokens, and as many keys and values as queries.

    torch's CPU kernel computes the upper triangle as well, only to mask it. So there the queries are taken in blocks,
    each against the keys up to its own end: 5/8 of the work with four blocks.
    """
    length = query.shape[2]
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    if query.device.type != "cpu" or length < _BLOCKS_PAY_FROM:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    ends = [length * block // _BLOCKS for block in range(_BLOCKS + 1)]
    mixed = [
        F.scaled_dot_product_attention(
            query[:, :, start:end], key[:, :, :end], value[:, :, :end], attn_mask=mask[:, :, start:end, :end]
        )
        for start, end in pairwise(ends)
    ]
    return torch.cat(mixed, dim=2)


def rotary_table(spec: ModelSpec, length: int, theta: float | None = None) -> Rotary:
    """Cosines and sines [length, rotary size] of the rotary embedding (arXiv 2104.09864), both halves alike.

    theta: the base of the frequencies; None: the model's.
    """
    exponents = torch.arange(0, spec.rotary_size, 2, dtype=torch.float64) / spec.rotary_size
    angles = torch.outer(torch.arange(length, dtype=torch.float64), (theta or spec.rope_theta) ** -exponents)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Turn the first dimensions of x [batch, heads, length, head_dim], or all, by each token's position."""
    cos, sin = rotary
    size = cos.shape[-1]
    if size < x.shape[-1]:
        return torch.cat([rotate(x[..., :size], rotary), x[..., size:]], dim=-1)
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)
