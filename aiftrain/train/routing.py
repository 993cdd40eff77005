"""How tokens find their experts: how many an expert may take, and the losses that keep a router fit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aiftrain.run.shape import MoeSpec
from aiftrain.train.mesh import ALONE, Axis
from aiftrain.train.tensor_parallel import copy_to, gathered, reduce_from


def within_capacity(chosen: Tensor, moe: MoeSpec, sequence: Axis = ALONE.sequence) -> Tensor:
    """chosen [batch, part, experts_per_token] with `num_experts` in the place of experts that have no room.

    An expert takes of each row (a sequence of packed documents) the first ones that chose it, as many as are
    `capacity_factor` times its even share. That depends on nothing outside the row, nor on what comes after a token; so
    neither on micro-batches and ranks. Those of `sequence` share out the rows, one after the other.
    """
    assert moe.capacity_factor is not None
    batch, part, choices = chosen.shape
    room = math.ceil(moe.capacity_factor * part * sequence.size * choices / moe.num_experts)
    keys = chosen + moe.num_experts * torch.arange(batch, device=chosen.device)[:, None, None]  # row and expert
    places, counts = _places(keys.flatten(), batch * moe.num_experts)
    if sequence.size > 1:
        earlier = gathered(counts, sequence)[: sequence.index].sum(0)
        places = places + earlier[keys.flatten()]
    return chosen.masked_fill(places.view_as(chosen) >= room, moe.num_experts)


def _places(keys: Tensor, kinds: int) -> tuple[Tensor, Tensor]:
    """How many equal keys stand before each one, and how many there are of each kind."""
    order = keys.argsort(stable=True)
    counts = keys.bincount(minlength=kinds)
    first = counts.cumsum(0) - counts
    places = torch.arange(len(keys), device=keys.device) - first[keys[order]]
    return places[order.argsort()], counts


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
