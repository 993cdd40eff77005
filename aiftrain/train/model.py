"""The decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU, in fused projections.

Names and shapes of its weights are those of checkpoints (checkpoint/export.py turns them into Hugging
Face's). Rotary embedding is the half-split form, so that exported weights need no permutation.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aiftrain.run.model import ModelSpec
from aiftrain.train.loss import chunked_cross_entropy

Logits = Tensor
Losses = tuple[Tensor, Tensor]  # the objective, and the plain cross-entropy, summed over tokens

_BLOCKS, _BLOCKS_PAY_FROM = 4, 512  # attention on a CPU; measured: 17 % less time at 512, 31 % at 1,024


class Attention(nn.Module):
    """Causal self-attention of `num_heads` queries over `num_kv_heads` keys and values."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.qkv = nn.Linear(spec.hidden_size, spec.query_size + 2 * spec.kv_size, bias=False)
        self.output = nn.Linear(spec.query_size, spec.hidden_size, bias=False)
        if spec.qk_norm:
            self.query_norm = nn.RMSNorm(spec.head_size, eps=spec.norm_eps)
            self.key_norm = nn.RMSNorm(spec.head_size, eps=spec.norm_eps)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """x [batch, length, hidden]; mask [batch or 1, 1, length, length] is added to the scores, None: causal only."""
        query, key, value = self._heads(x)
        if self.spec.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key = rotate(query, rotary), rotate(key, rotary)
        repeats = self.spec.num_heads // self.spec.num_kv_heads
        if repeats > 1:
            key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
        out: Tensor = self.output(attend(query, key, value, mask).transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        spec = self.spec
        sizes = [spec.query_size, spec.kv_size, spec.kv_size]
        query, key, value = (
            part.unflatten(-1, (-1, spec.head_size)).transpose(1, 2) for part in self.qkv(x).split(sizes, dim=-1)
        )
        return query, key, value


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)), gate and up in one product."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.gate_up = nn.Linear(spec.hidden_size, 2 * spec.intermediate_size, bias=False)
        self.down = nn.Linear(spec.intermediate_size, spec.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        out: Tensor = self.down(F.silu(gate) * up)
        return out


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(spec.hidden_size, eps=spec.norm_eps)
        self.attention = Attention(spec)
        self.mlp_norm = nn.RMSNorm(spec.hidden_size, eps=spec.norm_eps)
        self.mlp = MLP(spec)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotary, mask)
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class Head(nn.Module):
    """The output projection. It gives logits, or the loss without them."""

    weight: nn.Parameter

    def __init__(self, spec: ModelSpec, tied: nn.Parameter | None) -> None:
        super().__init__()
        self.weight = tied if tied is not None else nn.Parameter(torch.empty(spec.vocab_size, spec.hidden_size))
        self.z_loss = spec.z_loss

    def forward(self, hidden: Tensor, targets: Tensor | None, chunk: int) -> Logits | Losses:
        if targets is None:
            return F.linear(hidden, self.weight)
        return chunked_cross_entropy(
            hidden.flatten(0, 1), self.weight, targets.flatten(), chunk=chunk, z_loss=self.z_loss
        )


class Decoder(nn.Module):
    """The whole model. Weights are set by `initialise`, not by the constructor."""

    cos: Tensor
    sin: Tensor

    def __init__(self, spec: ModelSpec, *, sequence_length: int, loss_chunk: int = 1024) -> None:
        super().__init__()
        self.spec = spec
        self.loss_chunk = loss_chunk
        self.embed = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.layers = nn.ModuleList(Layer(spec) for _ in range(spec.num_layers))
        self.norm = nn.RMSNorm(spec.hidden_size, eps=spec.norm_eps)
        self.head = Head(spec, tied=self.embed.get_parameter("weight") if spec.tie_embeddings else None)
        cos, sin = rotary_table(spec, sequence_length)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(
        self, tokens: Tensor, targets: Tensor | None = None, documents: Tensor | None = None
    ) -> Logits | Losses:
        """Logits [batch, length, V], or with `targets` the summed losses (objective, plain).

        tokens, targets, documents: integers [batch, length]. Attention stays inside equal `documents`.
        """
        length = tokens.shape[1]
        rotary = (self.cos[:length], self.sin[:length])
        x = self.embed(tokens)
        mask = self._mask(x, documents)
        for layer in self.layers:
            x = layer(x, rotary, mask)
        out: Logits | Losses = self.head(self.norm(x), targets, self.loss_chunk)
        return out

    @staticmethod
    def _mask(x: Tensor, documents: Tensor | None) -> Tensor | None:
        """What attention adds to its scores. On a CPU there always is something, because `attend` needs it there."""
        device = x.device.type
        if documents is None:
            if device != "cpu":
                return None
            documents = torch.zeros(1, x.shape[1], dtype=torch.int32)
        autocast = torch.is_autocast_enabled(device)
        return document_mask(documents, torch.get_autocast_dtype(device) if autocast else x.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Causal attention, [batch, heads, length, head_dim] each.

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


def document_mask(documents: Tensor, dtype: torch.dtype) -> Tensor:
    """documents [batch, length] -> [batch, 1, length, length]: 0 where a token may look, minus infinity elsewhere."""
    length = documents.shape[1]
    same = documents[:, :, None] == documents[:, None, :]
    allowed = same & torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return torch.zeros(allowed.shape, dtype=dtype, device=documents.device).masked_fill_(~allowed, -torch.inf)[:, None]


def rotary_table(spec: ModelSpec, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [length, head_dim] of the rotary embedding (arXiv 2104.09864), both halves alike."""
    exponents = torch.arange(0, spec.head_size, 2, dtype=torch.float64) / spec.head_size
    angles = torch.outer(torch.arange(length, dtype=torch.float64), spec.rope_theta**-exponents)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn x [batch, heads, length, head_dim] by each token's position."""
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


def initialise(model: Decoder, seed: int) -> None:
    """Draw every weight from a generator of its own, so that values depend on seed and name and on nothing else.

    Matrices are normal with `init_std`; the two that write into the residual stream are scaled down by
    sqrt(2 * layers), as GPT-2 does; norms start at one.
    """
    for name, parameter in model.named_parameters():
        with _whole(parameter), torch.no_grad():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
                continue
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))  # it takes 32 bits
            values = torch.empty(parameter.shape, dtype=torch.float32, device="cpu")
            parameter.copy_(values.normal_(0.0, _std(model.spec, name), generator=generator))


def _std(spec: ModelSpec, name: str) -> float:
    into_residual = name.endswith(("attention.output.weight", "mlp.down.weight"))
    return spec.init_std / (2 * spec.num_layers) ** 0.5 if into_residual else spec.init_std


def _whole(parameter: nn.Parameter) -> AbstractContextManager[object]:
    """Under ZeRO-3 a parameter is a part of itself; gather it, and share out what was written."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed  # sampling does without it, and it takes seconds to load

    gathered: AbstractContextManager[object] = deepspeed.zero.GatheredParameters([parameter], modifier_rank=0)
    return gathered


def decayed_and_not(model: Decoder) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters that weight decay pulls on (matrices) and those that it leaves alone (norms)."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (free if "norm" in name else decayed).append(parameter)
    return decayed, free


def full_shapes(model: Decoder) -> Iterator[tuple[str, list[int]]]:
    """Name and whole shape of every parameter, also where ZeRO-3 holds only a part."""
    for name, parameter in model.named_parameters():
        yield name, list(getattr(parameter, "ds_shape", parameter.shape))
