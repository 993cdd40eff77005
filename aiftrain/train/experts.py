"""A mixture of experts: every token to its best experts. Ranks share out the experts, and what lies inside each."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aiftrain.run.model import ModelSpec
from aiftrain.run.shape import MoeSpec
from aiftrain.train.dispatch import Dispatch
from aiftrain.train.mesh import ALONE, Axis, Mesh
from aiftrain.train.mlp import MLP, activation
from aiftrain.train.parts import hold, hold_experts, shared_rows
from aiftrain.train.routing import routing_loss, within_capacity
from aiftrain.train.tensor_parallel import copy_to, reduce_from

Weights = tuple[Tensor, Tensor | None, Tensor, Tensor | None]  # of one expert: up, its bias, down, its bias


class Experts(nn.Module):
    """`num_experts` MLPs, of which the router chooses `experts_per_token` for each token, and one that all tokens pass.

    The experts' weights are stacked: gate_up [experts, 2 * inner, hidden] or up [experts, inner, hidden], and
    down [experts, inner, hidden]. `passed` counts choices that found no room, and all, since it was last set to zero.
    """

    passed: Tensor

    def __init__(self, spec: ModelSpec, moe: MoeSpec, mesh: Mesh = ALONE) -> None:
        super().__init__()
        self.spec, self.moe, self.mesh = spec, moe, mesh
        experts, hidden, inner = moe.num_experts, spec.hidden_size, moe.expert_intermediate_size
        stacked = (inner, inner) if spec.gated else (inner,)
        self.router = nn.Parameter(torch.empty(experts, hidden))
        self.up = self._shared_out((experts, sum(stacked), hidden), stacked, mesh.tensor)
        self.down = self._shared_out((experts, inner, hidden), (inner,), mesh.tensor)
        if spec.mlp_bias:
            self.up_bias = self._shared_out((experts, sum(stacked)), stacked, mesh.tensor)
            self.down_bias = self._shared_out((experts, hidden), (hidden,), ALONE.tensor)
        self.activation = activation(spec, mesh.tensor)
        if moe.shared_intermediate_size:
            self.shared = MLP(spec, moe.shared_intermediate_size, mesh)
        self.register_buffer("passed", torch.zeros(2, dtype=torch.int64), persistent=False)

    def _shared_out(self, shape: tuple[int, ...], stacked: tuple[int, ...], tensor: Axis) -> nn.Parameter:
        """The rank's part of a parameter of that whole shape: its experts', and of each what a tensor gives it."""
        own, columns = self.mesh.expert.share(shape[0]), prod(shape[1:]) // sum(stacked)
        parameter = nn.Parameter(torch.empty(len(own), shape[1] // tensor.size, *shape[2:]))
        part = shared_rows(shape, tensor, stacked=stacked, columns=columns, matrices=own)
        if self.mesh.expert.size > 1:
            return hold_experts(parameter, part, self.mesh)
        return hold(parameter, part) if tensor.size > 1 else parameter

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [batch, length, hidden] -> the same, and this layer's weighted routing losses."""
        tokens, tensor = x.flatten(0, -2), self.mesh.tensor
        with torch.autocast(x.device.type, enabled=False):  # a choice that rounding must not change (arXiv 2101.03961)
            logits = F.linear(tokens.float(), self.router.float())
        shares, chosen = logits.softmax(-1).topk(self.moe.experts_per_token, dim=-1)
        shares = shares / shares.sum(-1, keepdim=True)
        shares = copy_to(shares, tensor)
        taken = chosen
        if self.moe.capacity_factor:
            taken = self._with_room(chosen.unflatten(0, x.shape[:-1])).view_as(chosen)
        mixed = (self._experts(copy_to(tokens, tensor), taken) * shares[..., None].to(x.dtype)).sum(1)
        out = reduce_from(mixed, tensor).view_as(x)
        if self.moe.shared_intermediate_size:
            out = out + self.shared(x)
        return out, routing_loss(logits, chosen, self.moe, self.mesh.sequence)

    def _with_room(self, chosen: Tensor) -> Tensor:
        """The choices whose experts have room for the token; with the others it passes by on the residual stream."""
        taken = within_capacity(chosen, self.moe, self.mesh.sequence)
        self.passed[0] += (taken == self.moe.num_experts).sum()
        self.passed[1] += taken.numel()
        return taken

    def _experts(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        """What its experts make of each token, [tokens, experts_per_token, hidden]."""
        ways = Dispatch(chosen, self.moe.num_experts, self.mesh.expert)
        parts = zip(ways.there(tokens), self._weights(), strict=True)
        return ways.back([self._expert(part, *weights) for part, weights in parts])

    def _weights(self) -> Iterator[Weights]:
        """Expert by expert. Taken apart at once, so that the gradients of a stack are put together once."""
        tensor, none = self.mesh.tensor, [None] * len(self.up)
        up_bias = self.up_bias.unbind() if self.spec.mlp_bias else none
        # Each rank adds its part of the bias, and the sum over the ranks has it once.
        down_bias = (copy_to(self.down_bias, tensor) / tensor.size).unbind() if self.spec.mlp_bias else none
        return zip(self.up.unbind(), up_bias, self.down.unbind(), down_bias, strict=True)

    def _expert(self, x: Tensor, up: Tensor, up_bias: Tensor | None, down: Tensor, down_bias: Tensor | None) -> Tensor:
        inner = F.linear(x, up, up_bias)
        if self.spec.gated:
            gate, value = inner.chunk(2, dim=-1)
            return F.linear(self.activation(gate) * value, down.T, down_bias)
        return F.linear(self.activation(inner), down.T, down_bias)


def passed_by(model: nn.Module) -> list[Tensor]:
    """What each layer with a capacity has counted: [choices that found no room, all], to be read and set to zero."""
    layers = (layer for layer in model.modules() if isinstance(layer, Experts))
    return [layer.passed for layer in layers if layer.moe.capacity_factor]
