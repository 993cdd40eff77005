"""The most memory that one rank needs at one moment, what it consists of, and when and on which stage that is.

Plain arithmetic, cheap enough for a search over thousands of layouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Literal, NamedTuple

from aiftrain.plan.activations import LayerActivations
from aiftrain.plan.engine_traits import EngineTraits
from aiftrain.plan.stage_layers import stage_layers
from aiftrain.run.base import Strict
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.model import ModelSpec

Moment = Literal["forward", "backward", "optimizer step"]


class MemoryUse(Strict):
    """Bytes on the rank that needs most, at the moment when it needs most. `stage`: its place in the pipeline."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int  # and the loss's other needs
    buffers: int  # of communication, and gathered or cast weights
    libraries: int
    fragmentation: int
    peak_at: Moment
    stage: int

    @property
    def total(self) -> int:
        states = self.weights + self.gradients + self.optimizer
        return states + self.activations + self.logits + self.buffers + self.libraries + self.fragmentation


def memory_use(
    model: ModelSpec, layout: ParallelLayout, *, sequence_length: int, precision: str, traits: EngineTraits
) -> MemoryUse:
    """What `layout` needs where it needs most. `precision` "fp32", or a shorter one, which is taken for bf16."""
    rank = _Rank(model, layout, sequence_length, precision, traits)
    count = layout.pipeline_parallel
    stages = range(count) if layout.stages else {0, count - 1}  # equal ones have most at one end
    return rank.use(max((peak for stage in stages for peak in rank.peaks(stage)), key=attrgetter("total")))


def kept_between_passes(
    model: ModelSpec, layout: ParallelLayout, *, sequence_length: int, precision: str, traits: EngineTraits
) -> float:
    """Bytes that autograd holds on the first stage's ranks when all micro-batches in flight went forward.

    Activations, the mask, what the loss keeps where that is the last stage as well, and cast weights.
    """
    rank = _Rank(model, layout, sequence_length, precision, traits)
    loss = rank.loss()[0] if layout.pipeline_parallel == 1 else 0
    return (
        rank.activations(0)[0]
        + rank.mask()
        + loss
        + rank.casts(0) * (1 - layout.recomputed_share(layout.layers(0, model.num_layers)))
    )


class _Peak(NamedTuple):
    """One moment on one stage: bytes of all parts, and of those that come and go."""

    total: float
    stage: int
    moment: Moment
    activations: float
    logits: float
    buffers: float


@dataclass(frozen=True)
class _Sizes:
    """Parameters of a model's parts."""

    dense_layer: int
    expert_layer: int  # without its experts
    experts: int  # of one layer
    experts_in: tuple[bool, ...]  # which layers have them
    embedding: int
    head: int


@lru_cache(maxsize=256)
def _sizes(model: ModelSpec) -> _Sizes:
    experts_in = tuple(model.has_experts(layer) for layer in range(model.num_layers))
    by_experts = {has: model.layer_parameters(layer) for layer, has in enumerate(experts_in)}
    experts = model.layer_expert_parameters
    return _Sizes(
        dense_layer=by_experts.get(False, 0),
        expert_layer=by_experts.get(True, experts) - experts,
        experts=experts,
        experts_in=experts_in,
        embedding=model.embedding_parameters,
        head=model.vocab_size * model.hidden_size,
    )


class _Rank:
    """One rank's needs, in bytes."""

    def __init__(
        self, model: ModelSpec, layout: ParallelLayout, sequence_length: int, precision: str, traits: EngineTraits
    ) -> None:
        self.model, self.layout, self.traits = model, layout, traits
        self.sizes = _sizes(model)
        self.length = sequence_length
        self.element = 4 if precision == "fp32" else 2
        self.autocast = precision != "fp32" and layout.zero_stage in traits.autocast_stages
        self.fp32_weights = self.autocast or precision == "fp32"
        self.tokens = layout.micro_batch * sequence_length / layout.context_parallel
        self.sharers = layout.shard_group or layout.data_parallel * layout.context_parallel
        self.layers = stage_layers(self.sizes.experts_in, layout)  # with experts or without, by stage
        self.kinds = {experts: self._layer(experts) for experts in dict.fromkeys(self.sizes.experts_in)}

    def peaks(self, stage: int) -> Iterator[_Peak]:
        """The moments that may need most: while the loss is taken, when backward begins, and the optimizer's step."""
        kept, again = self.activations(stage)
        kept += self.mask()
        last = stage == self.layout.pipeline_parallel - 1
        held, passing = self.loss() if last else (0.0, 0.0)
        buffers, casts = self._buffers(stage), self.casts(stage)
        casts_left = casts * max(1 - self._again_share(stage), 1 / sum(self.layers[stage].values()))
        yield self._peak(stage, "forward", kept, held + passing, buffers + casts)
        yield self._peak(stage, "backward", kept + again, held, buffers + casts_left)
        yield self._peak(stage, "optimizer step", 0, 0, self._step_copies(stage))

    def _peak(self, stage: int, moment: Moment, activations: float, logits: float, buffers: float) -> _Peak:
        coming_and_going = (activations + logits + buffers) * (1 + self.traits.fragmentation)
        return _Peak(sum(self._states(stage)) + coming_and_going, stage, moment, activations, logits, buffers)

    def use(self, peak: _Peak) -> MemoryUse:
        """A peak with its parts spelled out."""
        weights, gradients, optimizer = self._states(peak.stage)
        coming_and_going = peak.activations + peak.logits + peak.buffers
        return MemoryUse(
            weights=int(weights),
            gradients=int(gradients),
            optimizer=int(optimizer),
            activations=int(peak.activations),
            logits=int(peak.logits),
            buffers=int(peak.buffers),
            libraries=self.traits.libraries,
            fragmentation=int(self.traits.fragmentation * coming_and_going),
            peak_at=peak.moment,
            stage=peak.stage,
        )

    def _parameters(self, stage: int) -> tuple[float, float]:
        """What one rank of a stage computes with: parameters outside experts, and experts."""
        sizes, layout, layers = self.sizes, self.layout, self.layers[stage]
        routed = layers.get(True, 0.0)
        outside = layers.get(False, 0.0) * sizes.dense_layer + routed * sizes.expert_layer
        experts = routed * sizes.experts / layout.expert_parallel
        return outside / layout.tensor_parallel + self._own_ends(stage), experts / layout.tensor_parallel

    def _own_ends(self, stage: int) -> float:
        """Embedding and output projection. A tied one exists twice where they are on different stages."""
        last = self.layout.pipeline_parallel - 1
        head = 0 if self.model.tie_embeddings and last == 0 else self.sizes.head
        ends = (self.sizes.embedding if stage == 0 else 0) + (head if stage == last else 0)
        return ends / (self.layout.tensor_parallel if self.traits.vocabulary_parallel else 1)

    def _states(self, stage: int) -> tuple[float, float, float]:
        """Weights, gradients and optimizer (ZeRO, arXiv 1910.02054, section 3)."""
        traits, zero = self.traits, self.layout.zero_stage
        weights, gradients, optimizer = self._bytes_each()
        copy = sum(self._parameters(stage)) / traits.secondary_group if traits.secondary_group > 1 else 0.0
        held = 0.0 if traits.weights_on_host else self._held(stage, shared_out=zero >= traits.weights_from)
        return (
            weights * (held + copy),
            gradients * self._held(stage, shared_out=zero >= traits.gradients_from),
            optimizer * self._held(stage, shared_out=zero >= traits.optimizer_from) * (not traits.optimizer_on_host),
        )

    def _bytes_each(self) -> tuple[float, float, float]:
        traits = self.traits
        if self.fp32_weights:
            return 4, 4, traits.states + (traits.fp32_masters if self.layout.zero_stage else 0)
        return traits.weights, traits.gradients, traits.masters + traits.states

    def _held(self, stage: int, *, shared_out: bool) -> float:
        """Parameters whose state this rank holds. Experts are shared out over the ranks that have the same ones."""
        outside, experts = self._parameters(stage)
        if not shared_out:
            return outside + experts
        return outside / self.sharers + experts / max(1, self.sharers // self.layout.expert_parallel)

    def activations(self, stage: int) -> tuple[float, float]:
        """What all micro-batches in flight keep, and what the backward pass of one layer needs besides."""
        layers, again_share = self.layers[stage], self._again_share(stage)
        mode = self.layout.recompute if again_share else "none"
        kept = {
            kind: again_share * one.kept(mode) + (1 - again_share) * one.kept("none")
            for kind, one in self.kinds.items()
        }
        again = max(self.kinds[experts].recomputed(mode) for experts in layers)
        everywhere = sum(count * kept[experts] for experts, count in layers.items())
        return self._passes(stage) * self.tokens * everywhere, self.tokens * again

    def _again_share(self, stage: int) -> float:
        """The share of a stage's layers that is computed again."""
        return self.layout.recomputed_share(self.layout.layers(stage, self.model.num_layers))

    def _layer(self, experts: bool) -> LayerActivations:
        return LayerActivations(
            self.model,
            self.layout,
            self.traits,
            sequence_length=self.length,
            element=self.element,
            residual=4 if self.fp32_weights else 2,
            experts=experts,
        )

    def _passes(self, stage: int) -> float:
        """How many micro-batches a rank holds the activations of, at the fullest moment.

        One forward, one backward (arXiv 2104.04473, section 2.2): a stage is as many micro-batches ahead as stages
        follow it. Interleaved, each rank has `virtual_stages` chunks of layers, and more of their passes in flight.
        """
        layout, behind = self.layout, self.layout.pipeline_parallel - 1 - stage
        chunks = layout.virtual_stages if layout.pipeline_parallel > 1 else 1
        if chunks == 1:
            return min(behind + 1, layout.accumulation)
        ahead = 2 * behind + (chunks - 1) * layout.pipeline_parallel + 1
        return min(ahead, chunks * layout.accumulation) / chunks

    def mask(self) -> float:
        """Of every pair of tokens: one for all layers, or one each for those with and without a window."""
        if not self.traits.document_mask:
            return 0
        model = self.model
        masks = 2 if model.sliding_window and model.global_every else 1
        heads = model.num_heads / self.layout.tensor_parallel if model.positions == "alibi" else 1
        return masks * heads * self.layout.micro_batch * self.length**2 * self.element

    def loss(self) -> tuple[float, float]:
        """What the loss keeps for the backward pass, and what it needs only while it is taken.

        A loss taken in chunks makes its gradients at once: they wait in place of the logits.
        """
        traits, hidden = self.traits, self.model.hidden_size
        vocabulary = self.model.vocab_size / (self.layout.tensor_parallel if traits.vocabulary_parallel else 1)
        chunk = min(self.tokens, traits.loss_chunk or self.tokens)
        logits = chunk * vocabulary * traits.logit_bytes
        element = 4 if self.fp32_weights else 2
        kept = self.tokens * next(iter(self.kinds.values())).norm()
        if traits.loss_chunk is None:
            return kept, logits
        kept += element * hidden * (self.tokens + vocabulary)
        passing = 0 if self.fp32_weights else 4 * vocabulary * hidden  # the weight's gradient, summed in fp32
        if self.autocast:
            passing += self.element * hidden * (vocabulary + 2 * self.tokens)
        return kept, logits + passing

    def casts(self, stage: int) -> float:
        """Copies of the layers' fp32 weights for products in bf16. They outlive the forward pass only where kept."""
        outside, experts = self._parameters(stage)
        return self.element * (outside - self._own_ends(stage) + experts) if self.autocast else 0

    def _buffers(self, stage: int) -> float:
        """Buckets of gradients, and weights while they are whole."""
        traits = self.traits
        if self.layout.zero_stage == 0:
            return 0
        reduced = traits.buckets * traits.bucket_elements * self.element
        if self.layout.zero_stage < traits.weights_from:
            return reduced
        return reduced + self._gathered(sum(self._parameters(stage)))

    def _gathered(self, parameters: float) -> float:
        """Whole weights of the layers at work, and the gradient of one before it is shared out."""
        layer = max(self.sizes.dense_layer, self.sizes.expert_layer + self.sizes.experts) / self.layout.tensor_parallel
        ends = (self.sizes.embedding + self.sizes.head) / self.layout.tensor_parallel
        at_work = min(parameters, self.traits.gathered_layers * layer + ends)
        return self.element * (max(at_work, min(parameters, self.traits.live_elements)) + layer)

    def _step_copies(self, stage: int) -> float:
        if not self.fp32_weights or not self.layout.zero_stage:
            return 0
        return self.traits.step_copies * self._held(stage, shared_out=True)
