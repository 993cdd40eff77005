"""Binding the ranks that torchrun starts to the cores of their GPUs' NUMA domains."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.plan.spec import resolve
from aiftrain.run.rank import Rank
from aiftrain.train import affinity
from aiftrain.train.affinity import bind_near_device, near_cores

ALL = frozenset(range(32))
TWO = {0: frozenset([*range(8), *range(16, 24)]), 1: frozenset([*range(8, 16), *range(24, 32)])}  # two threads a core


def of_rank(number: int, devices: list[int | None], ranks: int | None = None) -> list[int] | None:
    rank = Rank(local_rank=number, local_size=ranks or len(devices), launcher="torchrun")
    found = near_cores(devices, TWO, rank, ALL)
    return None if found is None else sorted(found)


def test_ranks_of_one_domain_share_its_cores_and_their_second_threads() -> None:
    devices: list[int | None] = [0, 0, 1, 1]
    assert of_rank(0, devices) == [*range(4), *range(16, 20)]
    assert of_rank(1, devices) == [*range(4, 8), *range(20, 24)]
    assert of_rank(2, devices) == [*range(8, 12), *range(24, 28)]


def test_the_order_of_devices_is_not_that_of_domains() -> None:
    """As on LUMI."""
    assert of_rank(0, [1, 0]) == sorted(TWO[1])


def test_devices_without_a_rank_leave_their_cores() -> None:
    assert of_rank(0, [0, 0, 1, 1], ranks=1) == sorted(TWO[0])


@pytest.mark.parametrize("devices", [[], [None, None], [7, 7]])
def test_where_nothing_is_known_nothing_is_bound(devices: list[int | None]) -> None:
    assert of_rank(0, devices, ranks=1) is None


def test_a_rank_that_somebody_bound_is_left_alone() -> None:
    rank = Rank(local_rank=0, local_size=2, launcher="torchrun")
    assert near_cores([0, 1], TWO, rank, TWO[0]) is None


@given(devices=st.lists(st.sampled_from([0, 1]), min_size=1, max_size=8))
def test_no_two_ranks_share_a_core_and_all_cores_near_devices_are_used(devices: list[int | None]) -> None:
    shares = [set(of_rank(number, devices) or ()) for number in range(len(devices))]
    assert all(shares) and sum(map(len, shares)) == len(set.union(*shares))
    assert set.union(*shares) == frozenset[int]().union(*(TWO[domain] for domain in devices if domain is not None))


def test_the_kernel_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """On this machine's own cores, with one made-up GPU beside its first domain."""
    before = os.sched_getaffinity(0)
    half = sorted(before)[: max(1, len(before) // 2)]
    monkeypatch.setattr(affinity, "_device_domains", lambda: [0])
    monkeypatch.setattr(affinity, "numa_domains", lambda _: {"0": ",".join(map(str, half)), "1": "4000"})
    gpu = resolve(["recipe=smoke", "factory=local", "hardware=h100"]).hardware
    try:
        if len(before) > len(half):
            assert bind_near_device(Rank(launcher="torchrun"), gpu) is not None
            assert os.sched_getaffinity(0) == set(half)
            os.sched_setaffinity(0, before)
        assert bind_near_device(Rank(launcher="slurm"), gpu) is None
        assert bind_near_device(Rank(launcher="torchrun"), resolve(["recipe=smoke"]).hardware) is None
        assert os.sched_getaffinity(0) == before
    finally:
        os.sched_setaffinity(0, before)
