"""Which tokens an expert has room for, against a plain loop; and on one rank, where tokens go and come back."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aiftrain.run.shape import MoeSpec
from aiftrain.train.dispatch import Dispatch
from aiftrain.train.experts import Experts, passed_by
from aiftrain.train.mesh import ALONE
from aiftrain.train.routing import within_capacity
from tests.train.references import spec


def plain(chosen: list[list[list[int]]], moe: MoeSpec) -> list[list[list[int]]]:
    """The same rule, one choice after the other."""
    assert moe.capacity_factor is not None
    taken = []
    for row in chosen:
        room = math.ceil(moe.capacity_factor * len(row) * moe.experts_per_token / moe.num_experts)
        left = [room] * moe.num_experts
        for token in row:
            for expert in token:
                left[expert] -= 1
                taken.append(expert if left[expert] >= 0 else moe.num_experts)
    return torch.tensor(taken).view(len(chosen), len(chosen[0]), -1).tolist()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 3),
    length=st.integers(1, 12),
    experts=st.integers(2, 5),
    choices=st.integers(1, 2),
    factor=st.floats(0.1, 2),
)
def test_an_expert_takes_the_first_of_each_row(
    seed: int, rows: int, length: int, experts: int, choices: int, factor: float
) -> None:
    moe = MoeSpec(num_experts=experts, experts_per_token=choices, expert_intermediate_size=1, capacity_factor=factor)
    logits = torch.randn(rows, length, experts, generator=torch.Generator().manual_seed(seed))
    chosen = logits.topk(choices).indices
    assert within_capacity(chosen, moe).tolist() == plain(chosen.tolist(), moe)


def test_what_went_nowhere_comes_back_as_zeros() -> None:
    tokens = torch.arange(1.0, 5.0)[:, None]
    ways = Dispatch(torch.tensor([[1, 0], [2, 2], [0, 2], [1, 0]]), 2, ALONE.expert)
    first, second = ways.there(tokens)
    assert (first.flatten().tolist(), second.flatten().tolist()) == ([1, 3, 4], [1, 4])
    back = ways.back([first * 10, second * 100])
    assert back[..., 0].tolist() == [[100, 10], [0, 0], [30, 0], [400, 40]]


def test_a_rank_without_tokens_has_nothing_to_send() -> None:
    """An evaluation may have fewer sequences than ranks."""
    moe = {"num_experts": 4, "experts_per_token": 3, "expert_intermediate_size": 8, "shared_intermediate_size": 8}
    shape = spec(moe=moe | {"capacity_factor": 1.0})
    assert shape.moe is not None
    for experts in (Experts(shape, shape.moe), Experts(shape, shape.moe.model_copy(update={"capacity_factor": None}))):
        assert experts(torch.zeros(0, 12, 32))[0].shape == (0, 12, 32)


def test_tokens_without_room_pass_by_and_are_counted() -> None:
    moe = {"num_experts": 2, "experts_per_token": 1, "expert_intermediate_size": 8, "capacity_factor": 0.5}
    shape = spec(moe=moe)
    assert shape.moe is not None
    layer = Experts(shape, shape.moe)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 1, generator=generator)
        layer.router[0], layer.router[1] = 1.0, -1.0
    out, _ = layer(torch.ones(2, 8, 32))  # all choose expert 0, which has room for 2 of the 8 in a row
    assert [row.abs().sum(-1).gt(0).tolist() for row in out] == [[True] * 2 + [False] * 6] * 2
    assert [count.tolist() for count in passed_by(layer)] == [[12, 16]]
