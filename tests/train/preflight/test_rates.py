"""Measured rates: who talks to whom, which node is slow, and what the profile gives to expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.run.machine import Hardware
from aiftrain.train.preflight.finding import Finding
from aiftrain.train.preflight.rates import Measured, Where, all_reduce_seconds, judge_rates, partners

GB = 10**9
GPU = Hardware(
    name="gpu",
    title="A GPU node",
    kind="cuda",
    devices_per_node=4,
    intra_node_gb_per_s=100.0,
    inter_node_gb_per_s=10.0,
)


def hosts(nodes: int, per_node: int = 4) -> list[str]:
    return [f"n{rank // per_node}" for rank in range(nodes * per_node)]


@given(st.integers(1, 40), st.integers(1, 4))
def test_every_node_has_two_partners_and_each_pair_agrees(nodes: int, per_node: int) -> None:
    names = hosts(nodes, per_node)
    found = partners(names)
    assert len({len(rounds) for rounds in found}) == 1 and len(found[0]) <= 3
    for rank, rounds in enumerate(found):
        for number, partner in enumerate(rounds):
            if partner >= 0:
                assert found[partner][number] == rank
                assert names[partner] != names[rank] and partner % per_node == rank % per_node
    others = [{names[partner] for partner in rounds if partner >= 0} for rounds in found]
    assert all(len(each) == min(2, nodes - 1) for each in others)


def test_a_rank_without_its_like_on_the_other_node_sits_out() -> None:
    assert partners(["a", "a", "b"]) == [[2], [-1], [0]]


def measured(nodes: int, slow: Sequence[int] = (), factor: float = 1.0) -> list[Measured]:
    """Nodes at 8 GB/s, as long as none of `slow` takes part."""
    names = hosts(nodes)
    seconds = {rank: 0.125 * (factor if rank // 4 in slow else 1.0) for rank in range(len(names))}
    return [
        Measured(
            clocks=(100.0, 200.0, 300.0),
            matmul=5e14,
            all_reduce=0.04,
            pairs=tuple((p, max(seconds[rank], seconds.get(p, 0.0))) for p in rounds),
        )
        for rank, rounds in enumerate(partners(names))
    ]


def judged(rates: Sequence[Measured], hardware: Hardware = GPU) -> list[Finding]:
    return list(judge_rates(rates, Where(hosts(len(rates) // 4), hardware, GB)))


@given(st.integers(3, 20), st.data())
def test_the_slow_node_is_named_and_its_partners_are_not(nodes: int, data: st.DataObject) -> None:
    slow = data.draw(st.integers(0, nodes - 1))
    factor = data.draw(st.floats(1.5, 1.95) | st.floats(2.05, 3.0))
    [finding] = judged(measured(nodes, [slow], factor))
    assert (finding.about, finding.host, finding.refuses) == ("links", f"n{slow}", factor > 2)
    [mild] = judged(measured(nodes, [slow], 2.5), GPU.model_copy(update={"kind": "cpu"}))
    assert not mild.refuses, "CPU ranks share their cores with others"


def test_nodes_that_are_as_fast_as_their_peers_and_profile_give_no_findings() -> None:
    for nodes in (1, 2, 5):
        assert judged(measured(nodes)) == []


def test_two_slow_nodes_are_the_profiles_or_the_settings_matter() -> None:
    [finding] = judged(measured(2, [0, 1], 5.0))
    assert (finding.about, finding.refuses) == ("links", False) and "up to 10" in finding.expected


def test_the_expectation_is_the_planners_arithmetic() -> None:
    assert all_reduce_seconds(GB, hosts(1), GPU) == pytest.approx(2 * 0.75 / 100)
    assert all_reduce_seconds(GB, hosts(2), GPU) == pytest.approx(2 * 0.875 / 40)  # four cards at once
    assert all_reduce_seconds(GB, hosts(2), GPU.model_copy(update={"inter_node_gb_per_s": None})) is None
    assert all_reduce_seconds(GB, ["n0"], GPU) == 0


def test_an_all_reduce_far_below_the_profile_is_told() -> None:
    slow = [replace(each, all_reduce=0.5) for each in measured(1)]
    [finding] = judged(slow)
    assert finding.about == "all-reduce" and "2.0 GB/s" in finding.found and "66.7 GB/s" in finding.expected
    late = [slow[0], *measured(1)[1:]]
    assert judged([replace(each, all_reduce=0.03) for each in late[:1]] + late[1:]) == [], "only the quickest counts"


@pytest.mark.parametrize(("share", "count", "refuses"), [(0.9, 0, False), (0.7, 1, False), (0.4, 1, True)])
def test_a_device_that_multiplies_slowly(share: float, count: int, refuses: bool) -> None:
    def with_slow(nodes: int) -> list[Measured]:
        rates = measured(nodes)
        rates[1] = replace(rates[1], matmul=share * 5e14)
        return rates

    found = judged(with_slow(2))
    assert [(finding.ranks, finding.refuses) for finding in found] == [((1,), refuses)] * count
    assert [finding.refuses for finding in judged(with_slow(1))] == [False] * count, "a lone node has no better one"
    assert judged(with_slow(2), GPU.model_copy(update={"kind": "cpu"})) == []


def test_a_clock_that_is_off_is_told_and_one_late_rank_is_not() -> None:
    rates = measured(2)
    off = [*rates[:4], *(replace(each, clocks=(103.0, 203.0, 303.0)) for each in rates[4:])]
    [finding] = judged(off)
    assert (finding.about, finding.host, finding.refuses) == ("clock", "n1", False)
    assert "3.0 s ahead" in finding.found
    assert judged([*rates[:7], replace(rates[7], clocks=(104.0, 200.01, 309.0))]) == []
