"""Collectives on links whose times can be told by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.plan.throughput.assumed import assumed_figures
from aiftrain.plan.throughput.collectives import ASSUMED_FAR, ASSUMED_NEAR, Links, overlapped
from aiftrain.plan.throughput.constants import Constants, Stack
from tests.plan.throughput.settings import HARDWARE, STACK

LINKS = Links(domain=4, near=100e9, far=10e9, hop=0.0, near_hop=0.0)
GROUPS = st.sampled_from((1, 2, 4, 8, 64, 512))
SIZES = st.floats(1e3, 1e12)


def test_a_gather_inside_the_node_is_a_ring() -> None:
    """Three quarters of 1 GB come in over 100 GB/s."""
    assert LINKS.gather(1e9, 4) == pytest.approx(0.75e9 / 100e9)


def test_a_gather_across_nodes_uses_every_card_of_the_node() -> None:
    """Seven eighths of 1 GB over four cards of 10 GB/s each."""
    assert LINKS.gather(1e9, 8) == pytest.approx(0.875e9 / 40e9)


def test_ranks_far_apart_have_one_card_each() -> None:
    assert LINKS.gather(1e9, 8, stride=4) == pytest.approx(0.875e9 / 10e9)


def test_an_exchange_inside_the_node_leaves_the_cards_alone() -> None:
    assert LINKS.exchange(1e9, 4) == pytest.approx(0.75e9 / 100e9)


def test_an_exchange_across_nodes_is_what_the_cards_take() -> None:
    """Of eight ranks on two nodes each sends half of its bytes to the other node, over its own card."""
    assert LINKS.exchange(1e9, 8) == pytest.approx(0.5e9 / 10e9)


def test_tokens_that_go_to_a_node_once_take_less() -> None:
    assert LINKS.exchange(1e9, 32, choices=8) < LINKS.exchange(1e9, 32)


def test_a_hop_costs_less_inside_the_node() -> None:
    slow = replace(LINKS, hop=1e-3, near_hop=0.25e-3)
    assert slow.gather(0, 4) == pytest.approx(3 * 0.25e-3)
    assert slow.gather(0, 8) == pytest.approx(7e-3)


def test_a_neighbour_on_another_node_is_reached_over_the_card() -> None:
    assert LINKS.send(1e9, 1) == pytest.approx(0.01)
    assert LINKS.send(1e9, 4) == pytest.approx(0.1)


@given(size=SIZES, group=GROUPS, stride=st.sampled_from((1, 2, 4, 8)), more=st.floats(1, 100))
def test_faster_links_never_take_longer(size: float, group: int, stride: int, more: float) -> None:
    faster = replace(LINKS, near=LINKS.near * more, far=LINKS.far * more)
    assert faster.gather(size, group, stride) <= LINKS.gather(size, group, stride)
    assert faster.exchange(size, group) <= LINKS.exchange(size, group)


@given(size=SIZES, group=GROUPS, more=st.floats(1, 100))
def test_more_bytes_never_take_less(size: float, group: int, more: float) -> None:
    assert LINKS.gather(size, group) <= LINKS.gather(size * more, group)
    assert LINKS.exchange(size, group) <= LINKS.exchange(size * more, group)


def test_one_rank_has_nobody_to_talk_to() -> None:
    assert LINKS.gather(1e9, 1) == LINKS.exchange(1e9, 1) == 0.0


@given(one=st.floats(0, 1e3), other=st.floats(0, 1e3), power=st.floats(1, 20))
def test_overlap_lies_between_the_longer_and_the_sum(one: float, other: float, power: float) -> None:
    both = overlapped(one, other, power)
    assert max(one, other) <= both <= (one + other) * (1 + 1e-9)


def test_the_network_falls_off_with_the_nodes() -> None:
    few, many = (Links.of(HARDWARE, nodes, Constants(), STACK).far for nodes in (2, 200))
    assert many < few
    assert many / few == pytest.approx(100 ** -Constants().net_fall)


def test_software_that_talks_slowly_is_slow_on_every_link() -> None:
    slow = Constants(talks={"chatty": 2.0})
    plain, chatty = (Links.of(HARDWARE, 2, slow, Stack(name=name, pattern="")) for name in ("some", "chatty"))
    assert chatty.near == plain.near / 2
    assert chatty.far == plain.far / 2


def test_a_domain_larger_than_the_node_counts() -> None:
    joined = HARDWARE.model_copy(update={"fast_domain": 72})
    assert Links.of(joined, 2, Constants(), STACK).domain == 72


def test_unknown_links_are_assumed_where_they_are_needed_and_named() -> None:
    unknown = HARDWARE.model_copy(update={"inter_node_gb_per_s": None, "intra_node_gb_per_s": None})
    assert math.isinf(Links.of(unknown, 1, Constants(), STACK).far)
    known = HARDWARE.model_copy(update={"inter_node_gb_per_s": ASSUMED_FAR, "intra_node_gb_per_s": ASSUMED_NEAR})
    assert Links.of(unknown, 2, Constants(), STACK) == Links.of(known, 2, Constants(), STACK)
    named = " ".join(assumed_figures(unknown, 2))
    assert "network" in named
    assert "between the devices" in named
    assert not list(assumed_figures(known, 2))


def test_measured_hops_stand_in_the_place_of_those_of_published_runs() -> None:
    known = Constants(hop_seconds=4e-6)
    assumed = Links.of(HARDWARE, 2, known, STACK)
    assert (assumed.hop, assumed.near_hop) == pytest.approx((4e-6, 1e-6))
    measured = HARDWARE.model_copy(update={"inter_node_us": 20.0, "intra_node_us": 3.0})
    there = Links.of(measured, 2, known, STACK)
    assert (there.hop, there.near_hop) == pytest.approx((20e-6, 3e-6))
