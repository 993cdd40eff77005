"""What the axes of a model hand to collectives in a micro-batch: hidden states and their gradients, in bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

from aiftrain.run.layout import ParallelLayout
from aiftrain.run.model import ModelSpec

_FP32 = 4
_COUNT = 8  # bytes of an integer: how many tokens go to an expert


@dataclass(frozen=True)
class LayerTraffic:
    """One rank's micro-batch through its `layers`: bytes of a weight, of a hidden state between layers, and of what
    products inside a layer give."""

    model: ModelSpec
    layout: ParallelLayout
    layers: range
    sequence_length: int
    weight: int
    hidden: int
    inner: int

    def handed_over(self) -> Iterator[tuple[str, int]]:
        """Kind and bytes."""
        if self.layout.tensor_parallel > 1:
            yield from self._of_tensor()
        if self.layout.context_parallel > 1:
            yield from self._of_sequence()
        if self.layout.expert_parallel > 1:
            yield from (("all_to_all", self._of_experts(layer)) for layer in self._with_experts)
        if self.layout.pipeline_parallel > 1:
            neighbours = (not self.is_first) + (not self.is_last)
            yield "send", neighbours * self.hidden * self._states

    @property
    def is_first(self) -> bool:
        return self.layers.start == 0

    @property
    def is_last(self) -> bool:
        return self.layers.stop == self.model.num_layers

    @property
    def _tokens(self) -> int:
        return self.layout.micro_batch * self.sequence_length // self.layout.context_parallel

    @property
    def _states(self) -> int:
        """Elements of the hidden states."""
        return self._tokens * self.model.hidden_size

    @property
    def _with_experts(self) -> list[int]:
        return [layer for layer in self.layers if self.model.has_experts(layer)]

    def _again(self, layer: int) -> bool:
        """Whether a layer talks a second time in its forward direction. Selective recomputation keeps what came."""
        return self.layout.recompute == "full" and layer % self.layout.recompute_every == 0

    def _of_tensor(self) -> Iterator[tuple[str, int]]:
        """Sums over the ranks of a tensor: of what leaves a half of a layer, and of gradients of what entered it."""
        yield "all_reduce", (self.is_first + self.is_last) * self.hidden * self._states  # embedding; head's gradient
        if self.is_last:
            yield "all_gather", 2 * _FP32 * self._tokens  # each token's log-partition and the logit of its target
        for layer in self.layers:
            yield "all_reduce", self._attention(layer) + self._mlp(layer)

    def _attention(self, layer: int) -> int:
        model, latent = self.model, self.model.latent
        out = self.inner * self._states * (1 + self._again(layer))
        if latent is None:
            return out + self.hidden * self._states + (2 * self.weight * model.head_size if model.qk_norm else 0)
        queries = self.inner * latent.query_rank if latent.query_rank else self.hidden * model.hidden_size
        return out + self._tokens * (queries + self.inner * (latent.rope_dim + latent.kv_rank))

    def _mlp(self, layer: int) -> int:
        """A dense layer ends with a sum that is not made again; experts' routing loss comes after theirs."""
        model, moe = self.model, self.model.moe
        there, back = self.inner * self._states, self.hidden * self._states
        if moe is None or not model.has_experts(layer):
            return there + back + (2 * self.weight if model.mlp == "xielu" else 0)
        passes = 1 + bool(moe.shared_intermediate_size)
        bias = moe.num_experts // self.layout.expert_parallel * model.hidden_size if model.mlp_bias else 0
        shares = _FP32 * self._tokens * moe.experts_per_token
        return passes * (there * (1 + self._again(layer)) + back) + shares + self.weight * bias

    def _of_sequence(self) -> Iterator[tuple[str, int]]:
        """Queries, keys and values to the ranks of their heads, attention's result back; gradients the other way."""
        sizes = exchanged_size(self.model, self.layout.tensor_parallel, self.layout.context_parallel)
        for layer in self.layers:
            yield "all_to_all", self.inner * self._tokens * sizes * (2 + self._again(layer))
        for layer in self._with_experts:
            yield from self._routing(layer)

    def _routing(self, layer: int) -> Iterator[tuple[str, int]]:
        """Sums for the losses of routing, and back; and how many tokens chose an expert, where its room is limited."""
        moe = self.model.moe
        assert moe is not None
        yield "all_reduce", _FP32 * (2 * moe.num_experts + 1) * (2 + self._again(layer))
        if moe.capacity_factor:
            counts = self.layout.micro_batch * moe.num_experts
            yield "all_gather", _COUNT * counts * (1 + self._again(layer))

    def _of_experts(self, layer: int) -> int:
        """Tokens to their experts and back, gradients the other way; the mean of all ranks, without limits to room."""
        moe = self.model.moe
        assert moe is not None
        rows = self._states * moe.experts_per_token
        forward = (self.hidden + self.inner) * rows
        counts = _COUNT * moe.num_experts
        return forward * (2 + self._again(layer)) + counts * (1 + self._again(layer))


def exchanged_size(model: ModelSpec, tensor: int, sequence: int) -> int:
    """Elements a token that one rank hands to the ranks of its sequence, before attention and after it.

    Queries and the result have all heads of the rank; keys and values are repeated until they can be shared out.
    """
    heads, latent = model.num_heads // tensor, model.latent
    keys = heads if latent else model.num_kv_heads // tensor
    keys *= sequence // gcd(sequence, keys)
    return (heads + keys) * (model.head_size + (latent.value_dim if latent else model.head_size))
