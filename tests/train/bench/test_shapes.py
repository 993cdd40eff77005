"""What is measured: the model's own products, what links carry, who talks to whom."""

from __future__ import annotations

import pytest
import torch

from aiftrain.plan.bench import bench_spec
from aiftrain.train.bench import pace
from aiftrain.train.bench.collectives import exchange_partners, link_bytes
from aiftrain.train.bench.matmul import model_products
from aiftrain.train.bench.session import processor
from aiftrain.train.bench.steps import random_batches


def test_the_models_products_are_those_of_its_forward_pass() -> None:
    """Their FLOPs are a third of 6 a weight and token: forward is one of three passes."""
    spec, _ = bench_spec(["recipe=smoke", "factory=local"], "x")
    tokens, model = spec.train.micro_batch * spec.train.sequence_length, spec.model
    flops = {name: 2.0 * m * n * k for name, (m, n, k) in model_products(spec)}
    head = flops.pop("head") * tokens / min(tokens, spec.train.loss_chunk)
    weights = model.num_layers * sum(flops.values()) + head
    attention = 12 * model.num_layers * model.query_size * spec.train.sequence_length / 2
    assert 3 * weights / tokens == pytest.approx(
        model.flops_per_token(spec.train.sequence_length) - attention, rel=0.01
    )


def test_experts_each_get_their_part_of_the_tokens() -> None:
    spec, _ = bench_spec(["recipe=eu-llm-moe", "factory=lumi", "account=project_1"], "x")
    moe = spec.model.moe
    assert moe is not None
    rows, columns, _ = dict(model_products(spec))["mlp in"]
    assert rows == spec.train.micro_batch * spec.train.sequence_length * moe.experts_per_token // moe.num_experts
    assert columns == 2 * moe.expert_intermediate_size


def test_what_a_link_carries() -> None:
    assert link_bytes("all-reduce", 4, 400) == 600
    assert link_bytes("all-gather", 4, 400) == link_bytes("all-to-all", 4, 400) == 300
    assert link_bytes("exchange", 2, 400) == 400


def test_partners_are_mutual_and_where_they_should_be() -> None:
    hosts = ["a", "a", "a", "b", "b", "b"]
    pairs = exchange_partners(hosts)
    assert pairs["inside a node"] == [1, 0, -1, 4, 3, -1]
    assert pairs["across nodes"] == [3, 4, 5, 0, 1, 2]
    assert exchange_partners(["a"]) == {}


def test_rows_are_the_cases_own_and_each_ranks_different() -> None:
    _, cases = bench_spec(["recipe=smoke", "factory=local", "launcher.ranks_per_node=2"], "x")
    case = cases.cases[0]
    one, other = (random_batches(case, rank)[0] for rank in (0, 1))
    assert one.tokens.shape == (case.execution.layout.micro_batch, case.spec.train.sequence_length)
    assert one.valid_tokens == one.tokens.size
    assert (one.tokens != other.tokens).any() and one.tokens.max() < case.spec.model.vocab_size


def test_samples_are_as_many_as_the_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that takes 10 ms: for 0.1 s ten, at least three, at most 25; one of 0.1 ms ten times a sample."""
    monkeypatch.setattr(pace, "gather_numbers", lambda value, device: [value])
    taken = [0.01]
    monkeypatch.setattr(pace, "seconds", lambda action, device, calls=1: taken[0])
    device = torch.device("cpu")
    calls = [pace.time_of(lambda: None, device, budget).calls for budget in (0.105, 0.011, 9.0, 0.009)]
    assert calls == [10, 3, 25, 1]
    taken[0] = 1e-4
    assert pace.time_of(lambda: None, device, 2e-4).calls == 30


def test_the_processor_has_a_name() -> None:
    assert processor() and "\n" not in processor()
