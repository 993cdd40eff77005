"""What follows from a model's shape without building it: parameters and FLOPs, to the unit."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Self

from pydantic import model_validator

from aiftrain.run.shape import ModelShape

_UNITS = {"M": 1e6, "B": 1e9}


class ModelSpec(ModelShape):
    """A model that a run trains: its shape, and what that amounts to."""

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        published = self.published_parameters
        if published is not None and not _agree(self.parameters, published):
            raise ValueError(f"the shape has {self.parameters:,} parameters, published are {published}")
        return self

    @property
    def attention_matmul_parameters(self) -> int:
        """Weights of one layer's matrices around attention."""
        hidden, latent = self.hidden_size, self.latent
        if latent is None:
            return hidden * (self.query_size + 2 * self.kv_size) + self.query_size * hidden
        rank = latent.query_rank
        queries = rank * (hidden + self.query_size) if rank else hidden * self.query_size
        down = hidden * (latent.kv_rank + latent.rope_dim)
        up = latent.kv_rank * self.num_heads * (latent.nope_dim + latent.value_dim)
        return queries + down + up + self.mixed_size * hidden

    @property
    def attention_parameters(self) -> int:
        """All weights of one layer's attention: matrices, biases, and the norms of queries and keys."""
        count = self.attention_matmul_parameters
        if self.latent:
            count += self.latent.kv_rank + (self.latent.query_rank or 0)
        if self.qkv_bias:
            count += self.query_size + 2 * self.kv_size
        if self.output_bias:
            count += self.hidden_size
        return count + (2 * self.head_size if self.qk_norm else 0)

    def mlp_matmul_parameters(self, intermediate_size: int) -> int:
        """Weights of the matrices of one MLP or expert."""
        return (3 if self.gated else 2) * self.hidden_size * intermediate_size

    def mlp_parameters(self, intermediate_size: int) -> int:
        """All weights of one MLP or expert: matrices, biases, and the two that shape a xIELU."""
        biases = (2 if self.gated else 1) * intermediate_size + self.hidden_size if self.mlp_bias else 0
        return self.mlp_matmul_parameters(intermediate_size) + biases + (2 if self.mlp == "xielu" else 0)

    @property
    def norm_parameters(self) -> int:
        """Weights of one norm of the hidden state."""
        return self.hidden_size * (2 if self.norm_bias else 1)

    @property
    def layer_expert_parameters(self) -> int:
        """All routed experts of one layer."""
        return self.moe.num_experts * self.mlp_parameters(self.moe.expert_intermediate_size) if self.moe else 0

    def layer_parameters(self, layer: int) -> int:
        """All weights of layer `layer`, counted from 0."""
        return self._block_parameters(self.has_experts(layer))

    @property
    def embedding_parameters(self) -> int:
        """The table of tokens, the table of positions, and the norm after them."""
        tables = (self.vocab_size + (self.max_positions or 0)) * self.hidden_size
        return tables + (self.norm_parameters if self.embedding_norm else 0)

    @property
    def head_parameters(self) -> int:
        """The output projection; 0 where it is the table of tokens."""
        return 0 if self.tie_embeddings else self.vocab_size * self.hidden_size

    @property
    def expert_parameters(self) -> int:
        """All routed experts of all layers: what expert parallelism shares out."""
        return self.expert_layers * self.layer_expert_parameters

    @property
    def parameters(self) -> int:
        """All weights of the model, to the unit."""
        layers = self._over_layers(self._block_parameters)
        return self.embedding_parameters + layers + self.norm_parameters + self.head_parameters

    @property
    def non_expert_parameters(self) -> int:
        return self.parameters - self.expert_parameters

    @property
    def active_parameters(self) -> int:
        """The weights that one token meets: all, less the experts that it is not sent to."""
        if self.moe is None:
            return self.parameters
        used = self.moe.experts_per_token * self.mlp_parameters(self.moe.expert_intermediate_size)
        return self.non_expert_parameters + self.expert_layers * used

    def layer_matmul_parameters(self, layer: int) -> int:
        """Weights of the matrices that one token is multiplied with in layer `layer`, counted from 0."""
        return self._block_matmul_parameters(self.has_experts(layer))

    @property
    def active_matmul_parameters(self) -> int:
        """Weights of the matrices that one token is multiplied with, the output projection among them."""
        return self._over_layers(self._block_matmul_parameters) + self.vocab_size * self.hidden_size

    def layer_flops_per_token(self, layer: int, sequence_length: int) -> float:
        """What layer `layer`, counted from 0, adds to `flops_per_token`."""
        context = self._mean_context(sequence_length, window=self.has_window(layer))
        return 6.0 * self.layer_matmul_parameters(layer) + 6 * (self.query_size + self.mixed_size) * context

    @property
    def head_flops_per_token(self) -> int:
        """What the output projection adds to `flops_per_token`."""
        return 6 * self.vocab_size * self.hidden_size

    def flops_per_token(self, sequence_length: int) -> float:
        """Model FLOPs to train on one token: forward and backward of every matrix product.

        6 FLOPs an active matrix weight (2 forward, 4 backward) plus 12 * layers * query size * context for
        attention, halved because attention is causal (PaLM appendix B, arXiv 2204.02311, less the half
        that causality removes). Under a window of w tokens the mean context is w - w^2 / (2 * length) instead of
        length / 2. The embedding look-up is no product; the output head is one. Document masks reduce the real
        work further and are not credited.
        """
        near = sum(map(self.has_window, range(self.num_layers))) if self.sliding_window else 0
        contexts = near * self._mean_context(sequence_length, window=True)
        contexts += (self.num_layers - near) * self._mean_context(sequence_length, window=False)
        return 6.0 * self.active_matmul_parameters + 6 * (self.query_size + self.mixed_size) * contexts

    def _mean_context(self, sequence_length: int, *, window: bool) -> float:
        reach = min(self.sliding_window or sequence_length, sequence_length) if window else sequence_length
        return reach - reach**2 / (2 * sequence_length)

    def _over_layers(self, of_one: Callable[[bool], int]) -> int:
        """What all layers have together: two products and no loop, for a search of layouts asks thousands of times."""
        with_experts = self.expert_layers
        return (self.num_layers - with_experts) * of_one(False) + with_experts * of_one(True)

    def _block_parameters(self, experts: bool) -> int:
        """All weights of a layer, with experts or with one MLP."""
        around = self.attention_parameters + 2 * self.norm_parameters
        if not experts:
            return around + self.mlp_parameters(self.intermediate_size)
        return around + self._routing_parameters + self.layer_expert_parameters

    def _block_matmul_parameters(self, experts: bool) -> int:
        """Weights of the matrices that one token is multiplied with in a layer, with experts or with one MLP."""
        if self.moe is None or not experts:
            return self.attention_matmul_parameters + self.mlp_matmul_parameters(self.intermediate_size)
        sizes = self.moe.experts_per_token * self.moe.expert_intermediate_size + self.moe.shared_intermediate_size
        router = self.hidden_size * self.moe.num_experts
        return self.attention_matmul_parameters + self.mlp_matmul_parameters(sizes) + router

    @property
    def _routing_parameters(self) -> int:
        """What a layer with experts has beside them: the router and the shared MLP."""
        if self.moe is None:
            return 0
        shared = self.moe.shared_intermediate_size
        return self.hidden_size * self.moe.num_experts + (self.mlp_parameters(shared) if shared else 0)


def _agree(count: int, published: int | str) -> bool:
    """Whether a count is the published one, at the precision of that: 7,550,013,440 is "7.55B"."""
    if isinstance(published, int):
        return count == published
    if not re.fullmatch(r"\d+(\.\d+)?[MB]", published):
        raise ValueError(f"published_parameters '{published}' is neither a whole number nor one such as 7.55B or 560M")
    digits = len(published[:-1].partition(".")[2])
    return f"{count / _UNITS[published[-1]]:.{digits}f}" == published[:-1]
