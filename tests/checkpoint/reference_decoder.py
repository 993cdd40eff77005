"""The decoder in plain numpy and double precision, without a cache, a fused matrix or a library of models.

It computes what an exported model must compute, straight from the formulas: RMSNorm (arXiv 1910.07467), rotary
positions (2104.09864), grouped-query attention (2305.13245) and SwiGLU (2002.05202).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from aiftrain.run.model import ModelSpec

Array = NDArray[np.float64]


def logits(model: ModelSpec, weights: Mapping[str, NDArray[np.float32]], tokens: NDArray[np.int64]) -> Array:
    """tokens [length] -> [length, vocabulary]."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    x = w["embed.weight"][tokens]
    for i in range(model.num_layers):
        layer = {name.removeprefix(f"layers.{i}."): array for name, array in w.items() if f"layers.{i}." in name}
        x = x + attention(model, layer, rms_norm(x, layer["attention_norm.weight"], model.norm_eps))
        x = x + mlp(layer, rms_norm(x, layer["mlp_norm.weight"], model.norm_eps))
    head = w["embed.weight" if model.tie_embeddings else "head.weight"]
    last: Array = rms_norm(x, w["norm.weight"], model.norm_eps) @ head.T
    return last


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    normed: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    return normed * weight


def mlp(w: Mapping[str, Array], x: Array) -> Array:
    gate, up = np.split(x @ w["mlp.gate_up.weight"].T, 2, axis=-1)
    down: Array = (gate / (1 + np.exp(-gate)) * up) @ w["mlp.down.weight"]
    return down


def attention(model: ModelSpec, w: Mapping[str, Array], x: Array) -> Array:
    ends = [model.query_size, model.query_size + model.kv_size]
    parts = np.split(x @ w["attention.qkv.weight"].T, ends, axis=-1)
    query, key, value = (part.reshape(len(x), -1, model.head_size).transpose(1, 0, 2) for part in parts)
    if model.qk_norm:
        query = rms_norm(query, w["attention.query_norm.weight"], model.norm_eps)
        key = rms_norm(key, w["attention.key_norm.weight"], model.norm_eps)
    group = model.num_heads // model.num_kv_heads
    key, value = (np.repeat(part, group, axis=0) for part in (rotate(model, key), value))
    scores = rotate(model, query) @ key.transpose(0, 2, 1) / np.sqrt(model.head_size)
    seen = np.tri(len(x), dtype=bool) & ~np.tri(len(x), k=-(model.sliding_window or len(x)), dtype=bool)
    scores = np.where(seen, scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    mixed: Array = shares / shares.sum(-1, keepdims=True) @ value
    return mixed.transpose(1, 0, 2).reshape(len(x), -1) @ w["attention.output.weight"]


def rotate(model: ModelSpec, x: Array) -> Array:
    """Turn pair (i, i + head_dim/2) at position p by p * theta ** (-2i / head_dim). x [heads, length, head_dim]."""
    half = model.head_size // 2
    angle = np.outer(np.arange(x.shape[1]), model.rope_theta ** (-np.arange(half) / half))
    cos, sin = np.cos(angle), np.sin(angle)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
