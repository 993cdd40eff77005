"""Devices, memory and room of nodes; whose fault a refusal is."""

from __future__ import annotations

import pytest

from aiftrain.plan.spec import resolve
from aiftrain.train.preflight.finding import Finding, as_event, grouped, refusal
from aiftrain.train.preflight.nodes import judge_nodes
from aiftrain.train.preflight.survey import DeviceSight, FolderSight, Sight
from tests.train.preflight.sights import GIB, changed, gpu_layout, gpu_spec, sights


def judged(seen: list[Sight], nodes: int = 2) -> list[Finding]:
    return list(judge_nodes(seen, gpu_spec(nodes=nodes), gpu_layout(nodes)))


def test_nodes_as_planned_give_no_findings() -> None:
    assert judged(sights()) == []
    assert judged(sights(1), nodes=1) == []


@pytest.mark.parametrize(
    "device", [DeviceSight(), DeviceSight(visible=4, trouble="CUDA error: uncorrectable ECC error encountered")]
)
def test_a_node_without_a_working_device_is_bad(device: DeviceSight) -> None:
    refused = refusal(judged(changed(sights(), 6, device=device)), ["n0"] * 4 + ["n1"] * 4)
    assert refused is not None
    assert (refused.exit_code, list(refused.bad_nodes)) == (1, ["n1"])
    assert "n1 (rank 6)" in refused.message and (device.trouble or "sees no GPU") in refused.message


def test_two_ranks_on_one_device_are_refused() -> None:
    [finding] = judged(changed(sights(), 3, device={"identity": "0000:01:00.0", "visible": 3}))
    assert (finding.host, finding.ranks, finding.refuses) == ("n0", (0, 3), True)
    assert "3 visible" in finding.found


def test_a_fault_of_all_nodes_alike_is_the_configurations() -> None:
    seen = sights()
    for rank in range(8):
        seen = changed(seen, rank, device=DeviceSight())
    refused = refusal(judged(seen), ["n0"] * 4 + ["n1"] * 4)
    assert refused is not None and (refused.exit_code, refused.bad_nodes) == (2, {})
    assert "n0, n1 (ranks 0-7)" in refused.message


def test_a_lone_node_that_is_not_as_its_profile_says_is_bad() -> None:
    refused = refusal(judged(changed(sights(1), 2, device=DeviceSight()), nodes=1), ["n0"] * 4)
    assert refused is not None and (refused.exit_code, list(refused.bad_nodes)) == (1, ["n0"])


@pytest.mark.parametrize(("free", "count", "refuses"), [(58.0, 0, False), (50.0, 1, False), (20.0, 1, True)])
def test_a_device_that_somebody_else_uses(free: float, count: int, refuses: bool) -> None:
    found = judged(changed(sights(), 1, device={"free_gib": free}))
    assert [finding.refuses for finding in found] == [refuses] * count
    alone = judged(changed(sights(1), 1, device={"free_gib": free}), nodes=1)
    assert [finding.refuses for finding in alone] == [False] * count, "a lone node has no better one"


def test_devices_of_another_kind_or_size_are_told() -> None:
    [size, kind] = judged(changed(sights(), 5, device={"name": "Other", "total_gib": 40.0, "free_gib": 40.0}))
    assert "40 GiB" in size.found and "64 GiB" in size.expected
    assert (kind.found, kind.expected) == ("Other", "GPU, as elsewhere")


def test_a_node_with_little_memory_left_is_told_from_three_nodes_on() -> None:
    [finding] = judged(changed(sights(3), 4, memory_gib=100.0), nodes=3)
    assert (finding.host, finding.ranks) == ("n1", (4, 5, 6, 7))
    assert judged(changed(sights(), 4, memory_gib=100.0)) == []


def test_room() -> None:
    full, few = FolderSight("/scratch", 1000, 10**6, True), FolderSight("/scratch", 10**15, 3, True)
    fine, small = FolderSight("/tmp", 10**12, None, True), FolderSight("/tmp", 1000, None, True)
    locked = FolderSight("/scratch", 10**15, 10**6, False)
    for folders, about, refuses in (
        ([fine, full, fine], "storage", True),
        ([fine, few, fine], "storage", True),
        ([locked, fine, fine], "storage", True),
        ([fine, fine, small], "temporary space", False),
    ):
        [finding] = judged(changed(sights(1), 0, folders=folders), nodes=1)
        assert (finding.about, finding.refuses) == (about, refuses)
    [little] = judged(changed(sights(1), 0, shared_memory=GIB // 2), nodes=1)
    [none] = judged(changed(sights(1), 0, shared_memory=0), nodes=1)
    assert (little.refuses, none.refuses) == (False, True)


@pytest.mark.parametrize(
    ("optimizer", "bytes_each"),
    [("adamw", 12), ("adamw ema_decay=0.9", 16), ("ademamix", 16), ("muon", 8)],  # of muon's matrices; of others 12
)
def test_room_is_for_what_the_optimizer_keeps(optimizer: str, bytes_each: int) -> None:
    name, *changes = optimizer.split()
    spec = resolve(["recipe=smoke", f"optimizer={name}", *(f"optimizer.{change}" for change in changes)])
    need = bytes_each * spec.model.parameters
    for free, found in ((need, []), (need - 1, ["storage"])):
        folders = [FolderSight("/scratch", size, None, True) for size in (10**15, free, 10**15)]
        seen = changed(sights(1), 0, folders=folders)
        assert [each.about for each in judge_nodes(seen, spec, gpu_layout(1)) if each.about == "storage"] == found


def test_the_same_thing_on_many_nodes_is_told_once() -> None:
    findings = [Finding("clock", f"n{n}", (n,), "late", "in time") for n in range(3)]
    findings.append(Finding("clock", "n9", (9,), "later", "in time"))
    events = [as_event(group) for group in grouped(findings)]
    assert [(event["hosts"], event["ranks"]) for event in events] == [(["n0", "n1", "n2"], [0, 1, 2]), (["n9"], [9])]
