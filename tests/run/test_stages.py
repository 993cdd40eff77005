"""Stages of a pipeline: the best cut, against all cuts there are; and what layers cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.run.model import ModelSpec
from aiftrain.run.shape import MoeSpec
from aiftrain.run.stages import cut, stage_bounds


def spec(**changes: object) -> ModelSpec:
    shape = {"name": "m", "vocab_size": 400, "hidden_size": 48, "intermediate_size": 96, "num_layers": 5}
    return ModelSpec.model_validate(shape | {"num_heads": 4, "num_kv_heads": 2} | changes)


def all_cuts(count: int, stages: int) -> Iterator[tuple[int, ...]]:
    return ((0, *inner, count) for inner in combinations(range(1, count), stages - 1))


def costs_of(bounds: Sequence[int], costs: Sequence[int], tail: int) -> list[int]:
    runs = [sum(costs[start:stop]) for start, stop in pairwise(bounds)]
    return [*runs[:-1], runs[-1] + tail]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.data(), st.integers(0, 30))
def test_no_other_cut_is_better(costs: list[int], data: st.DataObject, tail: int) -> None:
    stages = data.draw(st.integers(1, len(costs)))

    def order(bounds: tuple[int, ...]) -> tuple[int, int, tuple[int, ...]]:
        runs = costs_of(bounds, costs, tail)
        return max(runs), sum(run**2 for run in runs), bounds

    assert cut(costs, stages, tail) == min(all_cuts(len(costs), stages), key=order)


def test_equal_layers_are_shared_out_evenly_and_short_stages_come_first() -> None:
    assert cut([1] * 8, 4) == (0, 2, 4, 6, 8)
    assert cut([1] * 10, 4) == (0, 2, 4, 7, 10)
    assert cut([1] * 5, 2) == (0, 2, 5)


def test_a_large_vocabulary_takes_layers_from_the_last_stage() -> None:
    assert stage_bounds(spec(vocab_size=10), 2, 32) == (0, 3, 5)
    assert stage_bounds(spec(vocab_size=100_000), 2, 32) == (0, 4, 5)


def test_experts_and_windows_are_weighed() -> None:
    moe = MoeSpec(num_experts=8, experts_per_token=4, expert_intermediate_size=200, dense_layers=3)
    assert stage_bounds(spec(moe=moe, vocab_size=10), 2, 32) == (0, 4, 5)
    narrow = spec(sliding_window=8, global_every=5, vocab_size=10)
    assert narrow.layer_flops_per_token(0, 4096) < narrow.layer_flops_per_token(4, 4096)
    assert stage_bounds(narrow, 2, 4096) == (0, 4, 5)


@pytest.mark.parametrize("changes", [{}, {"sliding_window": 8, "global_every": 2}])
def test_the_parts_cost_what_the_whole_does(changes: dict[str, object]) -> None:
    model = spec(moe=MoeSpec(num_experts=4, experts_per_token=2, expert_intermediate_size=32, every=2), **changes)
    parts = sum(model.layer_flops_per_token(layer, 32) for layer in range(5)) + model.head_flops_per_token
    assert parts == model.flops_per_token(32)


def test_nothing_to_cut() -> None:
    assert stage_bounds(spec(), 1, 32) == () == stage_bounds(spec(), 6, 32)
