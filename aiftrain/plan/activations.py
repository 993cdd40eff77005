"""Activations: the bytes that one token keeps in one layer until its backward pass.

Counted tensor by tensor, as Korthikanti et al. do (arXiv 2205.05198, section 4), for gated and plain MLPs, grouped
queries, experts, and kernels that keep more or less. tests/train/test_activation_memory.py compares them with what
torch holds. Multi-head latent attention is counted as if its kernel kept what others keep.
"""

from __future__ import annotations

from functools import cached_property

from aiftrain.plan.engine_traits import EngineTraits
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.model import ModelSpec
from aiftrain.run.spec import Recompute

_FP32 = 4
_BLOCKS_FROM = 512  # tokens from which attention on a CPU goes by blocks of queries


class LayerActivations:
    """Bytes a token keeps in one layer on one of the ranks that share the layer, by mode of recomputation.

    `element` is the size of what products take and give, `residual` that of the stream between layers. Tensor
    parallelism shares out heads and the MLP's width; sequence parallelism also shares out the rest.
    """

    def __init__(
        self,
        model: ModelSpec,
        layout: ParallelLayout,
        traits: EngineTraits,
        *,
        sequence_length: int,
        element: int,
        residual: int,
        experts: bool = False,
    ) -> None:
        self.model, self.traits = model, traits
        self.length, self.element = sequence_length, element
        self.moe = model.moe if experts else None
        self.tensor = layout.tensor_parallel
        alone = self.tensor if layout.sequence_parallel else 1
        self.stream = residual * model.hidden_size / alone
        self.hidden = element * model.hidden_size / alone
        self.alone = alone

    def kept(self, mode: Recompute) -> float:
        """Until the backward pass."""
        if mode == "full":
            return self.stream
        if mode == "none":
            return self._everything
        if self.traits.selective == "attention":
            return self._everything - self._scores()
        return self._products()

    def recomputed(self, mode: Recompute) -> float:
        """For the length of one layer's backward pass: what was computed again there, and the widest gradients."""
        widest = (3 if self.model.gated else 2) * self._width * self.element
        return self._everything - self.kept(mode) + widest

    def norm(self) -> float:
        """One norm of the stream: its input; an unfused one keeps the normalised stream too, and all that in fp32."""
        if self.model.norm == "layer":
            return self.stream + 2 * _FP32 / self.alone
        kept = self.stream if self.traits.fused_norm else 2 * _FP32 * self.model.hidden_size / self.alone
        return kept + _FP32 / self.alone

    @cached_property
    def _everything(self) -> float:
        return 2 * (self.norm() + self.hidden) + self._attention() + self._mlp()

    def _attention(self) -> float:
        """Queries, keys and values as attention takes them, its result, and what norms of queries and keys keep."""
        model = self.model
        copied = self.traits.repeats_kv and model.num_kv_heads < model.num_heads
        queries, keys, values = model.query_size, model.kv_size, model.mixed_size if model.latent else model.kv_size
        if copied:
            keys, values = model.query_size, model.mixed_size
        if self.traits.splits_qkv:
            queries, values = self._of_the_product(queries, values, copied)
        vectors = queries + keys + values + model.mixed_size * (2 if self._result_is_copied else 1)
        return (self.element * vectors + self._query_norms()) / self.tensor + self._scores()

    def _of_the_product(self, queries: int, values: int, copied: bool) -> tuple[int, int]:
        """Elements held for queries and values where they may be parts of the product that gave both and keys.

        As long as one of its parts is in use, all of the product stays.
        """
        model = self.model
        product = model.query_size + 2 * model.kv_size
        turned = model.positions == "rope" or model.qk_norm
        if not turned:
            return product, values if copied else 0
        if not copied:
            return queries, product
        return queries, values + (product if model.qk_norm and self._norm_takes_product else 0)

    @property
    def _result_is_copied(self) -> bool:
        """On CPUs, where blocks of queries are joined, or a norm or a partial turn has changed the order in memory."""
        other_order = self.model.qk_norm or self.model.rotary_fraction < 1
        return self.traits.joins_blocks and (self.length >= _BLOCKS_FROM or other_order)

    @property
    def _norm_takes_product(self) -> bool:
        """Whether norms of queries and keys read the product itself, and not an fp32 copy of it."""
        return self.traits.fused_norm or self.element == _FP32

    def _query_norms(self) -> float:
        model = self.model
        if not model.qk_norm:
            return 0
        heads = model.num_heads + model.num_kv_heads
        if self.traits.fused_norm:
            return _FP32 * heads
        copies = 1 if self._norm_takes_product else 2
        return _FP32 * (heads + copies * (model.query_size + model.kv_size))

    def _scores(self) -> float:
        """Flash attention keeps one number a head; others keep the probabilities, unfused ones in fp32 as well."""
        heads = self.model.num_heads / self.tensor
        if self.traits.attention == "flash":
            return _FP32 * heads
        copies = self.element + (_FP32 if self.traits.attention == "unfused" else 0)
        return copies * heads * self.length

    @property
    def _width(self) -> float:
        """Inner dimensions of the MLP that one token passes on one rank: one MLP, or its experts and the shared one."""
        moe = self.moe
        if moe is None:
            return self.model.intermediate_size / self.tensor
        return (moe.experts_per_token * moe.expert_intermediate_size + moe.shared_intermediate_size) / self.tensor

    def _mlp(self) -> float:
        """The first product's result, what the activation makes of it, and that times the gate."""
        inner = 2 if self.model.gated else 1
        activated = 2 if self.model.gated and not self.traits.fused_mlp else 1
        curve = 5 + 2 * self.element if self.model.mlp == "xielu" else 0  # its pieces, and where each holds
        return self._width * (self.element * (inner + activated) + curve) + self._routed()

    def _routed(self) -> float:
        """Inputs and results of the experts that a token goes to, the router's fp32 input, and its probabilities.

        The router and the MLP that all tokens pass take the norm's result; where that is fp32, products cast it.
        """
        moe = self.moe
        if moe is None:
            return 0
        router = _FP32 * (self.model.hidden_size / self.alone + 5 * moe.num_experts)
        shared = self.hidden if moe.shared_intermediate_size and self.element < _FP32 else 0
        return 2 * moe.experts_per_token * self.hidden + router + shared - self.hidden

    def _products(self) -> float:
        """The layer's input, what its products and attention give, and nothing else."""
        model, moe = self.model, self.moe
        attention = model.query_size + 2 * model.kv_size + model.mixed_size
        given = attention / self.tensor + (2 if model.gated else 1) * self._width
        results, router = 1, 0
        if moe is not None:
            results = moe.experts_per_token + (1 if moe.shared_intermediate_size else 0)
            router = _FP32 * moe.num_experts
        return self.stream + (1 + results) * self.hidden + self.element * given + self._scores() + router
