"""A mixture of experts: every token to its best experts, none dropped.

Every rank holds all experts; the ranks of a tensor share out what lies inside each.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aiftrain.run.model import ModelSpec, MoeSpec
from aiftrain.train.mesh import ALONE, Axis, Mesh
from aiftrain.train.mlp import MLP, activation
from aiftrain.train.parts import hold, shared_rows
from aiftrain.train.tensor_parallel import copy_to, reduce_from

Weights = tuple[Tensor, Tensor | None, Tensor, Tensor | None]  # of one expert: up, its bias, down, its bias


class Experts(nn.Module):
    """`num_experts` MLPs, of which the router chooses `experts_per_token` for each token, and one that all tokens pass.

    The experts' weights are stacked: gate_up [experts, 2 * inner, hidden] or up [experts, inner, hidden], and
    down [experts, inner, hidden].
    """

    def __init__(self, spec: ModelSpec, moe: MoeSpec, mesh: Mesh = ALONE) -> None:
        super().__init__()
        self.spec, self.moe, self.tensor, self.sequence = spec, moe, mesh.tensor, mesh.sequence
        experts, hidden, inner = moe.num_experts, spec.hidden_size, moe.expert_intermediate_size
        stacked = (inner, inner) if spec.gated else (inner,)
        self.router = nn.Parameter(torch.empty(experts, hidden))
        self.up = self._shared_out((experts, sum(stacked), hidden), stacked, hidden)
        self.down = self._shared_out((experts, inner, hidden), (inner,), hidden)
        if spec.mlp_bias:
            self.up_bias = self._shared_out((experts, sum(stacked)), stacked, 1)
            self.down_bias = nn.Parameter(torch.empty(experts, hidden))
        self.activation = activation(spec, mesh.tensor)
        if moe.shared_intermediate_size:
            self.shared = MLP(spec, moe.shared_intermediate_size, mesh)

    def _shared_out(self, shape: tuple[int, ...], stacked: tuple[int, ...], columns: int) -> nn.Parameter:
        """The rank's part of a parameter of that whole shape, whose second dimension is shared out."""
        axis = self.tensor
        parameter = nn.Parameter(torch.empty(shape[0], shape[1] // axis.size, *shape[2:]))
        if axis.size == 1:
            return parameter
        return hold(parameter, shared_rows(shape, axis, stacked=stacked, columns=columns))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [batch, length, hidden] -> the same, and this layer's weighted routing losses."""
        tokens = x.flatten(0, -2)
        with torch.autocast(x.device.type, enabled=False):  # a choice that rounding must not change (arXiv 2101.03961)
            logits = F.linear(tokens.float(), self.router.float())
        shares, chosen = logits.softmax(-1).topk(self.moe.experts_per_token, dim=-1)
        shares = shares / shares.sum(-1, keepdim=True)
        shares = copy_to(shares, self.tensor)
        mixed = (self._experts(copy_to(tokens, self.tensor), chosen) * shares[..., None].to(x.dtype)).sum(1)
        out = reduce_from(mixed, self.tensor).view_as(x)
        if self.moe.shared_intermediate_size:
            out = out + self.shared(x)
        return out, routing_loss(logits, chosen, self.moe, self.sequence)

    def _experts(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        """What its experts make of each token, [tokens, experts_per_token, hidden]: sorted by expert and back."""
        order = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=self.moe.num_experts).tolist()
        sent = tokens.repeat_interleave(self.moe.experts_per_token, 0)[order].split(counts)
        results = [self._expert(part, *weights) for part, weights in zip(sent, self._weights(), strict=True)]
        back: Tensor = torch.cat(results)[order.argsort()]
        return back.view(len(tokens), -1, tokens.shape[-1])

    def _weights(self) -> Iterator[Weights]:
        """Expert by expert. Taken apart at once, so that the gradients of a stack are put together once."""
        none = [None] * self.moe.num_experts
        up_bias = self.up_bias.unbind() if self.spec.mlp_bias else none
        # Each rank adds its part of the bias, and the sum over the ranks has it once.
        down_bias = (copy_to(self.down_bias, self.tensor) / self.tensor.size).unbind() if self.spec.mlp_bias else none
        return zip(self.up.unbind(), up_bias, self.down.unbind(), down_bias, strict=True)

    def _expert(self, x: Tensor, up: Tensor, up_bias: Tensor | None, down: Tensor, down_bias: Tensor | None) -> Tensor:
        inner = F.linear(x, up, up_bias)
        if self.spec.gated:
            gate, value = inner.chunk(2, dim=-1)
            return F.linear(self.activation(gate) * value, down.T, down_bias)
        return F.linear(self.activation(inner), down.T, down_bias)


def routing_loss(logits: Tensor, chosen: Tensor, moe: MoeSpec, sequence: Axis = ALONE.sequence) -> Tensor:
    """The weighted losses that keep a router fit, of logits [tokens, experts] and chosen [tokens, experts_per_token].

    Balance: experts * sum over experts of (its share of the choices * its mean probability), 1 where all are chosen
    alike (Switch, arXiv 2101.03961, eq. 4). z-loss: the mean squared log-partition (ST-MoE, arXiv 2202.08906, eq. 5).
    Both are of the whole micro-batch, of which the ranks of `sequence` have a part each.
    """
    experts, tokens = moe.num_experts, len(logits) * sequence.size
    counts = chosen.flatten().bincount(minlength=experts)
    own = torch.cat([counts, logits.softmax(-1).sum(0), logits.logsumexp(-1).square().sum()[None]])
    # Each rank's loss depends on the tokens of all: both the sums and their gradients are summed over the ranks.
    whole = copy_to(reduce_from(own, sequence), sequence)
    choices, probabilities, squares = whole.split([experts, experts, 1])
    balance = experts * (choices * probabilities).sum() / (tokens * tokens * chosen.shape[1])
    loss: Tensor = moe.balance_loss * balance + moe.router_z_loss * squares.sum() / tokens
    return loss
