"""The sizes of a model's parameter tensors, in the decoder's order and in the optimizer's groups.

DeepSpeed pads groups and tensors before it shares them out, so bytes on a rank follow from these and not from the
number of parameters alone. tests/train/test_parameters.py compares them with the decoder's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from aiftrain.run.model import ModelSpec
from aiftrain.run.optimizer import Kind, ParameterGroup

Groups = tuple[tuple[int, ...], ...]  # elements of each tensor, by optimizer group
_Tensor = tuple[int, Kind]  # elements, and what it is


@lru_cache(maxsize=64)
def tensor_sizes(model: ModelSpec, groups: tuple[ParameterGroup, ...], layers: range | None = None) -> Groups:
    """Elements of each tensor of `model`, in the groups of an optimizer.

    layers: those of one stage of a pipeline; the first has the embedding, the last the output projection. None: all.
    """
    tensors = list(_tensors(model, layers or range(model.num_layers)))
    return tuple(tuple(size for size, kind in tensors if kind in group.kinds) for group in groups)


def _tensors(model: ModelSpec, layers: range) -> Iterator[_Tensor]:
    if layers.start == 0:
        yield from _embedding(model)
    for layer in layers:
        yield from _norm(model)
        yield from _attention(model)
        yield from _norm(model)
        yield from _experts(model) if model.has_experts(layer) else _mlp(model, model.intermediate_size)
    if layers.stop == model.num_layers:
        yield from _norm(model)
        if not model.tie_embeddings:
            yield model.vocab_size * model.hidden_size, "table"


def _embedding(model: ModelSpec) -> Iterator[_Tensor]:
    yield model.vocab_size * model.hidden_size, "table"
    if model.max_positions:
        yield model.max_positions * model.hidden_size, "table"
    if model.embedding_norm:
        yield from _norm(model)


def _norm(model: ModelSpec) -> Iterator[_Tensor]:
    yield model.hidden_size, "vector"
    if model.norm_bias:
        yield model.hidden_size, "vector"


def _product(inputs: int, outputs: int, *, bias: bool = False) -> Iterator[_Tensor]:
    yield inputs * outputs, "matrix"
    if bias:
        yield outputs, "vector"


def _attention(model: ModelSpec) -> Iterator[_Tensor]:
    hidden = model.hidden_size
    if model.latent:
        yield from _latent_attention(model)
        return
    yield from _product(hidden, model.query_size + 2 * model.kv_size, bias=model.qkv_bias)
    yield from _product(model.query_size, hidden, bias=model.output_bias)
    if model.qk_norm:
        yield model.head_size, "vector"
        yield model.head_size, "vector"


def _latent_attention(model: ModelSpec) -> Iterator[_Tensor]:
    latent, hidden = model.latent, model.hidden_size
    assert latent is not None
    if latent.query_rank:
        yield from _product(hidden, latent.query_rank)
        yield latent.query_rank, "vector"
    yield from _product(latent.query_rank or hidden, model.query_size)
    yield from _product(hidden, latent.kv_rank + latent.rope_dim)
    yield latent.kv_rank, "vector"
    yield from _product(latent.kv_rank, model.num_heads * (latent.nope_dim + latent.value_dim))
    yield from _product(model.mixed_size, hidden, bias=model.output_bias)


def _mlp(model: ModelSpec, width: int) -> Iterator[_Tensor]:
    inner = 2 * width if model.gated else width
    yield from _product(model.hidden_size, inner, bias=model.mlp_bias)
    if model.mlp == "xielu":
        yield 1, "vector"
        yield 1, "vector"
    yield from _product(width, model.hidden_size, bias=model.mlp_bias)


def _experts(model: ModelSpec) -> Iterator[_Tensor]:
    """The router, all experts stacked, and the MLP that every token passes."""
    moe, hidden = model.moe, model.hidden_size
    assert moe is not None
    inner = moe.expert_intermediate_size * (2 if model.gated else 1)
    yield moe.num_experts * hidden, "matrix"
    yield moe.num_experts * inner * hidden, "matrix"
    yield moe.num_experts * hidden * moe.expert_intermediate_size, "matrix"
    if model.mlp_bias:
        yield moe.num_experts * inner, "vector"
        yield moe.num_experts * hidden, "vector"
    if moe.shared_intermediate_size:
        yield from _mlp(model, moe.shared_intermediate_size)
