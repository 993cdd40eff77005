"""Cores: the forms that they are written in, the plan's binding, overlaps, and the way to the device."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.train.preflight.binding import judge_binding
from aiftrain.train.preflight.cores import parse_cores, parse_mask, stated_cores
from aiftrain.train.preflight.finding import Finding, runs_of
from aiftrain.train.preflight.survey import Sight
from tests.conftest import small_execution, small_spec
from tests.train.preflight.sights import changed, gpu_layout, gpu_spec, sights

BOUND = {"cpu_bind": "mask_cpu:0xf,0xf0,0xf00,0xf000"}
COUNTS_OF_CORES = st.frozensets(st.integers(0, 300))


@given(COUNTS_OF_CORES)
def test_lists_and_masks_are_read_as_they_are_written(cores: frozenset[int]) -> None:
    assert parse_cores(runs_of(cores)) == cores
    assert parse_mask(hex(sum(1 << core for core in cores))) == cores


@pytest.mark.parametrize(
    ("cpu_bind", "stated"),
    [
        ("mask_cpu:0xfe,0xfe00", ["1-7", "9-15"]),
        ("verbose,map_cpu:0,8", ["0", "8"]),
        ("list:0-23:24-47", ["0-23", "24-47"]),
        ("cores", []),
        ("mask_cpu:0xf*2", []),
    ],
)
def test_bindings_of_slurm_and_pals(cpu_bind: str, stated: list[str]) -> None:
    assert [runs_of(cores) for cores in stated_cores(cpu_bind)] == stated


def judged(seen: list[Sight], **spec: Any) -> list[Finding]:
    return list(judge_binding(seen, gpu_spec(**spec), gpu_layout()))


def test_ranks_on_their_devices_cores_are_right() -> None:
    assert judged(sights(), factory=BOUND) == []
    assert judged(sights(), factory={"cpu_bind": "cores"}, device_cores=("0-3", "4-7", "8-11", "12-15")) == []
    assert judged(sights(), device_numa=(0, 1, 2, 3)) == []


def test_a_binding_that_gives_two_ranks_the_same_cores_is_no_overlap() -> None:
    """As Deucalion's does."""
    seen = sights()
    for rank in range(8):
        seen = changed(seen, rank, cores="0-3" if rank % 4 < 2 else "8-11", device=None)
    assert judged(seen, factory={"cpu_bind": "mask_cpu:0xf,0xf,0xf00,0xf00"}) == []


def test_a_rank_on_others_cores_is_told() -> None:
    [away, *overlaps] = judged(changed(sights(), 5, cores="0-3", device=None), factory=BOUND)
    assert (away.host, away.ranks, away.refuses) == ("n1", (5,), False)
    assert away.found == "cores 0-3" and "4-7" in away.expected
    assert [finding.ranks for finding in overlaps] == [(4,), (5,)]


def test_masks_that_overlap_and_are_not_all_the_same_are_told() -> None:
    found = judged(changed(sights(), 6, cores="6-11"))
    assert [(finding.ranks, "rank 6" in finding.found) for finding in found] == [((5,), True), ((6,), False)]
    everywhere = sights()
    for rank in range(8):
        everywhere = changed(everywhere, rank, cores="0-15")
    assert judged(everywhere) == [], "no binding at all"


def test_one_core_where_the_plan_gives_more_is_told() -> None:
    [finding] = judged(changed(sights(), 3, cores="12"))
    assert (finding.found, finding.ranks, finding.refuses) == ("one core, 12", (3,), False)
    assert finding.expected.startswith("4,")


def test_all_ranks_of_a_node_on_one_core_are_refused() -> None:
    seen = sights()
    for rank in range(4, 8):
        seen = changed(seen, rank, cores="2", device=None)
    [finding] = judged(seen)
    assert (finding.host, finding.ranks, finding.refuses) == ("n1", (4, 5, 6, 7), True)
    assert list(judge_binding([*seen[4:]], small_spec(), small_execution().layout)) == [], "a local start binds nothing"


def test_cores_far_from_the_device_are_told() -> None:
    [finding] = judged(changed(sights(), 2, device={"numa": 0}))
    assert "domain 0" in finding.found and "0-3" in finding.expected
    assert judged(changed(sights(), 2, device={"numa": None})) == [], "the firmware does not say"
    assert judged(changed(sights(), 2, device={"numa": 9})) == [], "a domain without cores, as of a GPU's memory"


def test_a_profile_that_has_devices_on_other_domains_is_told() -> None:
    found = judged(sights(), device_numa=(0, 1, 3, 2))
    assert [finding.ranks for finding in found] == [(2,), (3,), (6,), (7,)]
