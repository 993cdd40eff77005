"""The decoder that a shape describes: embedding, pre-norm layers of attention and MLP or experts, output head.

Names and shapes of its weights are those of checkpoints (checkpoint/export.py turns them into Hugging Face's).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aiftrain.run.model import ModelSpec
from aiftrain.run.optimizer import Kind
from aiftrain.run.spec import Recompute
from aiftrain.train.attention import Rotary, attention, rotary_table
from aiftrain.train.experts import Experts
from aiftrain.train.loss import IGNORE, chunked_cross_entropy
from aiftrain.train.masks import DENSE, Masks, make_masks
from aiftrain.train.mesh import ALONE, Mesh
from aiftrain.train.mlp import MLP, XIELU
from aiftrain.train.norm import hidden_norm
from aiftrain.train.parts import hold, part_of, shared_rows
from aiftrain.train.recompute import run_plainly, runner
from aiftrain.train.tensor_parallel import SplitEmbedding, copy_to

Logits = Tensor
Losses = tuple[Tensor, Tensor]  # the objective, and the plain cross-entropy, summed over tokens
Handed = tuple[Tensor, Tensor | None]  # hidden states for the next stage, and this stage's share of the objective


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, spec: ModelSpec, index: int, mesh: Mesh) -> None:
        super().__init__()
        self.attention_norm = hidden_norm(spec)
        self.attention = attention(spec, index, mesh)
        self.mlp_norm = hidden_norm(spec)
        self.routes = spec.has_experts(index)
        self.mlp = (
            Experts(spec, spec.moe, mesh) if spec.moe and self.routes else MLP(spec, spec.intermediate_size, mesh)
        )

    def forward(self, x: Tensor, routing: Tensor | None, rotary: Rotary, masks: Masks) -> tuple[Tensor, Tensor | None]:
        """x [batch, length, hidden] and the routing losses so far -> both after this layer."""
        x = x + self.attention(self.attention_norm(x), rotary, masks)
        if not self.routes:
            return x + self.mlp(self.mlp_norm(x)), routing
        change, loss = self.mlp(self.mlp_norm(x))
        return x + change, loss if routing is None else routing + loss


class Head(nn.Module):
    """The output projection. It gives logits (a rank's part of the vocabulary), or the loss without them."""

    weight: Tensor

    def __init__(self, spec: ModelSpec, tied: nn.Parameter | None, mesh: Mesh) -> None:
        """Its weight is `tied`, or its own; a tied one that is on another stage of a pipeline is a buffer here."""
        super().__init__()
        self.tensor, self.z_loss = mesh.tensor, spec.z_loss
        if tied is None and spec.tie_embeddings:
            lent = torch.empty(spec.vocab_size // mesh.tensor.size, spec.hidden_size)
            self.register_buffer("weight", lent, persistent=False)
        else:
            self.weight = self._own(spec.vocab_size, spec.hidden_size) if tied is None else tied

    def _own(self, vocabulary: int, hidden: int) -> nn.Parameter:
        axis = self.tensor
        weight = nn.Parameter(torch.empty(vocabulary // axis.size, hidden))
        if axis.size == 1:
            return weight
        return hold(weight, shared_rows((vocabulary, hidden), axis, stacked=(vocabulary,), columns=hidden))

    def forward(self, hidden: Tensor, targets: Tensor | None, chunk: int) -> Logits | Losses:
        hidden = copy_to(hidden, self.tensor)
        if targets is None:
            return F.linear(hidden, self.weight)
        return chunked_cross_entropy(
            hidden.flatten(0, 1), self.weight, targets.flatten(), chunk=chunk, z_loss=self.z_loss, tensor=self.tensor
        )


class Decoder(nn.Module):
    """The whole model, or the layers of one stage of a pipeline: the first has the embedding, the last the head.

    Weights are set by `initialise`, not by the constructor. On every stage they have the names of the whole model's.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        spec: ModelSpec,
        *,
        sequence_length: int,
        loss_chunk: int = 1024,
        recompute: Recompute = "none",
        recompute_every: int = 1,
        mesh: Mesh = ALONE,
        layers: range | None = None,
    ) -> None:
        """layers: of the whole model, counted from 0, those that are built here; None: all."""
        super().__init__()
        self.spec, self.mesh = spec, mesh
        layers = layers or range(spec.num_layers)
        self.is_first, self.is_last = layers.start == 0, layers.stop == spec.num_layers
        self.loss_chunk = loss_chunk
        self.run_layer, self.recompute_every = runner(recompute), recompute_every
        self.kernel = DENSE  # of attention; the engine chooses one that fits the device
        if self.is_first:
            self._build_embedding()
        self.layers = nn.ModuleDict({str(index): Layer(spec, index, mesh) for index in layers})
        if self.is_last:
            self.norm = hidden_norm(spec)
            self.head = Head(spec, self.embed.weight if self.is_first and spec.tie_embeddings else None, mesh)
        cos, sin = rotary_table(spec, sequence_length)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def set_positions(self, length: int, theta: float) -> None:
        """Be ready for sequences of `length` tokens, with rotary positions of base `theta`, in fp32."""
        self.cos, self.sin = (table.to(self.cos.device) for table in rotary_table(self.spec, length, theta))

    def _build_embedding(self) -> None:
        spec = self.spec
        self.embed = SplitEmbedding(spec.vocab_size, spec.hidden_size, self.mesh.tensor)
        if spec.max_positions:
            self.positions = nn.Embedding(spec.max_positions, spec.hidden_size)
        if spec.embedding_norm:
            self.embed_norm = hidden_norm(spec)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        documents: Tensor | None = None,
        handed: Tensor | None = None,
    ) -> Logits | Losses | Handed:
        """Logits [batch, length, V], or with `targets` the summed losses (objective, plain).

        tokens, targets: integers [batch, length]; where ranks share out sequences, of this rank's part of the length.
        documents: integers [batch, length] of all of it. Attention stays inside equal `documents`, which may lie on the
        CPU: kernels that want to know where they begin need not wait for the device then. A stage that is not the first
        takes the hidden states [batch, length, hidden] that the one before it `handed` on; one that is not the last
        gives such, and its share of the objective.
        """
        part = tokens.shape[1]
        own = slice(self.mesh.sequence.index * part, (self.mesh.sequence.index + 1) * part)
        x = self._embedded(tokens, own) if handed is None else handed
        rotary = (self.cos[own], self.sin[own])
        masks = make_masks(self.spec, x, documents, self.mesh, self.kernel)
        routing: Tensor | None = None
        for index, layer in self.layers.items():
            run = self.run_layer if self.recomputes(index) else run_plainly
            x, routing = run(layer, x, routing, rotary, masks)
        if routing is not None and targets is not None:
            routing = routing * (targets != IGNORE).sum() / self.spec.expert_layers
        if not self.is_last:
            return x, routing
        out: Logits | Losses = self.head(self.norm(x), targets, self.loss_chunk)
        if routing is None or targets is None:
            return out
        objective, plain = out
        return objective + routing, plain

    def recomputes(self, layer: str) -> bool:
        """Whether the layer of that name, its number in the whole model, is called by `run_layer`: every n-th is."""
        return int(layer) % self.recompute_every == 0

    def _embedded(self, tokens: Tensor, own: slice) -> Tensor:
        """tokens [batch, part], which stand at `own` in their sequences -> [batch, part, hidden]."""
        x: Tensor = self.embed(tokens)
        if self.spec.max_positions:
            x = x + self.positions(torch.arange(own.start, own.stop, device=tokens.device))
        return self.embed_norm(x) if self.spec.embedding_norm else x


def initialise(model: Decoder, seed: int) -> None:
    """Draw every weight from a generator of its own, so that values depend on seed and name and on nothing else.

    A rank that holds a part of a weight draws all of it.

    Matrices are normal with `init_std`; the two that write into the residual stream are scaled down by
    sqrt(2 * layers), as GPT-2 does; norms start at one and biases at zero.
    """
    for name, parameter in model.named_parameters():
        with _whole(parameter), torch.no_grad():
            if not _is_matrix(name, parameter):
                parameter.fill_(_constant(name))
                continue
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))  # it takes 32 bits
            part = part_of(parameter)
            values = torch.empty(part.shape, dtype=torch.float32, device="cpu")
            values.normal_(0.0, _std(model.spec, name), generator=generator)
            parameter.copy_(part.of(values).view(parameter.shape))


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Biases of experts are stacked, so their shape alone does not tell."""
    return len(part_of(parameter).shape) > 1 and not name.endswith("bias")


def _constant(name: str) -> float:
    if ".activation." in name:
        return XIELU.first_value(name)
    return 0.0 if name.endswith("bias") else 1.0


def _std(spec: ModelSpec, name: str) -> float:
    into_residual = name.endswith(("attention.output.weight", ".down.weight", "mlp.down"))
    return spec.init_std / (2 * spec.num_layers) ** 0.5 if into_residual else spec.init_std


def _whole(parameter: nn.Parameter) -> AbstractContextManager[object]:
    """Under ZeRO-3 a parameter is a part of itself; gather it, and share out what was written."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed  # sampling does without it, and it takes seconds to load

    gathered: AbstractContextManager[object] = deepspeed.zero.GatheredParameters([parameter], modifier_rank=0)
    return gathered


def kind_of(name: str, parameter: nn.Parameter) -> Kind:
    """What a parameter is to an optimizer."""
    if not _is_matrix(name, parameter):
        return "vector"
    return "table" if name in ("embed.weight", "positions.weight", "head.weight") else "matrix"


def full_shapes(model: Decoder) -> Iterator[tuple[str, list[int]]]:
    """Name and whole shape of every parameter, also where this rank holds a part of it."""
    for name, parameter in model.named_parameters():
        yield name, list(part_of(parameter).shape)
