"""The sizes of a model's parameter tensors, in the decoder's order and in the optimizer's groups.

DeepSpeed pads groups and tensors before it shares them out, so bytes on a rank follow from these and not from the
number of parameters alone. tests/train/test_parameters.py compares them with the decoder's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from aiftrain.run.model import ModelSpec
from aiftrain.run.optimizer import Kind, ParameterGroup

Groups = tuple[tuple[int, ...], ...]  # elements of each tensor, by optimizer group


class Tensor(NamedTuple):
    """A parameter: its elements, and whether the ranks of a tensor share it out, it is a stack of experts, and its
    module is the one in whose midst computing a layer again can stop."""

    size: int
    kind: Kind
    split: bool = False
    of_experts: bool = False
    ends: bool = False


class Shares(NamedTuple):
    """How many ranks share out each matrix, and how many the experts."""

    tensor: int = 1
    expert: int = 1


WHOLE = Shares()


@lru_cache(maxsize=64)
def tensor_sizes(
    model: ModelSpec, groups: tuple[ParameterGroup, ...], layers: range | None = None, shares: Shares = WHOLE
) -> Groups:
    """Elements of each tensor of `model` on one rank, in the groups of an optimizer.

    layers: those of one stage of a pipeline; the first has the embedding, the last the output projection. None: all.
    Where ranks share out experts, these are left out: DeepSpeed treats them by themselves, as `expert_sizes` has them.
    """
    tensors = [
        t for t in _tensors(model, layers or range(model.num_layers)) if not (t.of_experts and shares.expert > 1)
    ]
    return _grouped(tensors, groups, shares)


@lru_cache(maxsize=64)
def expert_sizes(
    model: ModelSpec, groups: tuple[ParameterGroup, ...], layers: range | None = None, shares: Shares = WHOLE
) -> Groups:
    """The same of the experts that ranks share out; nothing where they do not."""
    tensors = [t for t in _tensors(model, layers or range(model.num_layers)) if t.of_experts and shares.expert > 1]
    return _grouped(tensors, groups, shares)


def _grouped(tensors: list[Tensor], groups: tuple[ParameterGroup, ...], shares: Shares) -> Groups:
    return tuple(tuple(own_size(t, shares) for t in tensors if t.kind in group.kinds) for group in groups)


def own_size(tensor: Tensor, shares: Shares) -> int:
    """Elements of one rank's part."""
    return tensor.size // (shares.tensor if tensor.split else 1) // (shares.expert if tensor.of_experts else 1)


def _tensors(model: ModelSpec, layers: range) -> Iterator[Tensor]:
    if layers.start == 0:
        yield from embedding(model)
    for index in layers:
        yield from layer(model, index)
    if layers.stop == model.num_layers:
        yield from head(model)


def layer(model: ModelSpec, index: int) -> Iterator[Tensor]:
    """Layer `index`, counted from 0, of the whole model."""
    yield from _norm(model)
    yield from _attention(model)
    yield from _norm(model)
    yield from _experts(model) if model.has_experts(index) else _mlp(model, model.intermediate_size, ends=True)


def head(model: ModelSpec) -> Iterator[Tensor]:
    """The last norm and the output projection; a tied one is the embedding's."""
    yield from _norm(model)
    if not model.tie_embeddings:
        yield Tensor(model.vocab_size * model.hidden_size, "table", split=True)


def embedding(model: ModelSpec) -> Iterator[Tensor]:
    """The table of tokens first, and what is added to it."""
    yield Tensor(model.vocab_size * model.hidden_size, "table", split=True)
    if model.max_positions:
        yield Tensor(model.max_positions * model.hidden_size, "table")
    if model.embedding_norm:
        yield from _norm(model)


def _norm(model: ModelSpec) -> Iterator[Tensor]:
    yield Tensor(model.hidden_size, "vector")
    if model.norm_bias:
        yield Tensor(model.hidden_size, "vector")


def _into_parts(inputs: int, outputs: int, *, bias: bool = False) -> Iterator[Tensor]:
    """A product of whose outputs the ranks of a tensor have a part each."""
    yield Tensor(inputs * outputs, "matrix", split=True)
    if bias:
        yield Tensor(outputs, "vector", split=True)


def _from_parts(inputs: int, outputs: int, *, bias: bool = False, ends: bool = False) -> Iterator[Tensor]:
    """A product of whose inputs they have a part each."""
    yield Tensor(inputs * outputs, "matrix", split=True, ends=ends)
    if bias:
        yield Tensor(outputs, "vector", ends=ends)


def _attention(model: ModelSpec) -> Iterator[Tensor]:
    hidden = model.hidden_size
    if model.latent:
        yield from _latent_attention(model)
        return
    yield from _into_parts(hidden, model.query_size + 2 * model.kv_size, bias=model.qkv_bias)
    yield from _from_parts(model.query_size, hidden, bias=model.output_bias)
    if model.qk_norm:
        yield Tensor(model.head_size, "vector")
        yield Tensor(model.head_size, "vector")


def _latent_attention(model: ModelSpec) -> Iterator[Tensor]:
    latent, hidden = model.latent, model.hidden_size
    assert latent is not None
    if latent.query_rank:
        yield Tensor(hidden * latent.query_rank, "matrix")
        yield Tensor(latent.query_rank, "vector")
    yield from _into_parts(latent.query_rank or hidden, model.query_size)
    yield Tensor(hidden * (latent.kv_rank + latent.rope_dim), "matrix")
    yield Tensor(latent.kv_rank, "vector")
    yield from _into_parts(latent.kv_rank, model.num_heads * (latent.nope_dim + latent.value_dim))
    yield from _from_parts(model.mixed_size, hidden, bias=model.output_bias)


def _mlp(model: ModelSpec, width: int, *, ends: bool = False) -> Iterator[Tensor]:
    inner = 2 * width if model.gated else width
    yield from _into_parts(model.hidden_size, inner, bias=model.mlp_bias)
    if model.mlp == "xielu":
        yield Tensor(1, "vector")
        yield Tensor(1, "vector")
    yield from _from_parts(width, model.hidden_size, bias=model.mlp_bias, ends=ends)


def _experts(model: ModelSpec) -> Iterator[Tensor]:
    """The router, all experts stacked, and the MLP that every token passes."""
    moe, hidden = model.moe, model.hidden_size
    assert moe is not None
    experts, inner = moe.num_experts, moe.expert_intermediate_size * (2 if model.gated else 1)
    yield Tensor(experts * hidden, "matrix", ends=True)
    yield Tensor(experts * inner * hidden, "matrix", split=True, of_experts=True, ends=True)
    yield Tensor(experts * hidden * moe.expert_intermediate_size, "matrix", split=True, of_experts=True, ends=True)
    if model.mlp_bias:
        yield Tensor(experts * inner, "vector", split=True, of_experts=True, ends=True)
        yield Tensor(experts * hidden, "vector", of_experts=True, ends=True)
    if moe.shared_intermediate_size:
        yield from _mlp(model, moe.shared_intermediate_size)
