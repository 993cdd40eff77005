"""The checks at the start with real ranks: quick and quiet where all is well; who is missing, hung or bound wrongly."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import Nursery, Ranks, events

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]
ON_NODES = "tests.ranks.on_nodes"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="host names of one's own need root: sudo -E pytest ...")


@pytest.mark.parametrize("ranks", [2, 4])
def test_all_is_well_here_and_it_takes_no_time(nursery: Nursery, new_run: NewRun, ranks: int) -> None:
    folder = new_run("train.steps=2", "train.micro_batch=1", ranks=ranks)
    assert nursery.start(folder, ranks).wait() == [0] * ranks
    [preflight] = events(folder, "preflight")
    assert preflight["warnings"] == 0
    assert not events(folder, "warning") and not events(folder, "bad node")
    assert preflight["all_reduce_gb_per_s"] > 0
    assert preflight["seconds"] < 1, "0.05 to 0.2 s on two busy cores"


def test_checks_can_be_left_out(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run("train.steps=2", "train.preflight_seconds=0")
    assert nursery.start(folder, 2).wait() == [0, 0]
    assert not events(folder, "preflight")


def test_a_wrong_interface_is_refused_with_the_names_that_exist(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run()
    ranks = nursery.start(folder, 2, GLOO_SOCKET_IFNAME="ib7")
    assert ranks.wait() == [2, 2]
    assert "GLOO_SOCKET_IFNAME=ib7" in ranks.message() and "lo" in ranks.message()
    assert ranks.message(0) == ranks.message(1), "one message"
    assert not events(folder, "bad node"), "all nodes alike: the setting's fault"


@needs_root
def test_a_node_without_the_others_interface_is_bad(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run()
    ranks = nursery.start(folder, 2, program=ON_NODES, RANKS_PER_NODE="1", IFNAME_1="ib7")
    assert ranks.wait() == [1, 1]
    [bad] = events(folder, "bad node")
    assert bad["host"] == "node1" and "ib7" in bad["reason"]
    assert "node1" in ranks.message(0) == ranks.message(1)


@needs_root
def test_several_nodes_time_their_links_in_pairs(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run("train.steps=2", "train.micro_batch=1", ranks=4)
    assert nursery.start(folder, 4, program=ON_NODES, RANKS_PER_NODE="1").wait() == [0] * 4
    [preflight] = events(folder, "preflight")
    assert preflight["nodes"] == 4


def test_masks_that_overlap_are_told(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run("train.steps=2")
    cores = sorted(os.sched_getaffinity(0))[:2]
    one = {"CORES_0": f"{cores[0]}", "CORES_1": f"{cores[0]},{cores[1]}"}
    assert nursery.start(folder, 2, program=ON_NODES, **one).wait() == [0, 0]
    warnings = events(folder, "warning")
    assert [(each["about"], each["ranks"]) for each in warnings] == [("cores", [0]), ("cores", [1])]
    assert "rank 1" in warnings[0]["found"] and "rank 0" in warnings[1]["found"]


def test_all_ranks_on_one_core_of_several_are_refused(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run("launcher=mpi")
    core = str(min(os.sched_getaffinity(0)))
    ranks = nursery.start(folder, 2, program=ON_NODES, CORES_0=core, CORES_1=core)
    assert ranks.wait() == [2, 2]
    assert f"all ranks on core {core}" in ranks.message()


@needs_root
@pytest.mark.parametrize(
    ("stops_at", "limit"), [("look", 1), pytest.param("all_reduce_time", 5, marks=pytest.mark.slow)]
)
def test_a_rank_that_freezes_is_named_in_time(nursery: Nursery, new_run: NewRun, stops_at: str, limit: int) -> None:
    """Before the process group is made, and after, where the others wait for it in a collective."""
    folder = new_run(f"train.preflight_seconds={limit}", "train.micro_batch=1", ranks=4)
    started = time.monotonic()
    ranks = nursery.start(folder, 4, program=ON_NODES, RANKS_PER_NODE="2", STOPS="3", STOPS_AT=stops_at)
    codes = _all_but(ranks, 3)
    assert codes == [1, 1, 1]
    assert time.monotonic() - started < limit + 10
    assert "no sign of life from rank 3 on node1" in ranks.message()
    assert ranks.message(1) == ranks.message(0)
    assert [bad["host"] for bad in events(folder, "bad node")] == ["node1"]
    assert "most recent call first" in (folder.attempt_logs(1) / "rank-00000.log").read_text()


@pytest.mark.slow
@needs_root
def test_the_freezing_of_rank_0_which_names_others_is_told_too(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run("train.preflight_seconds=5")
    trouble = {"STOPS": "0", "STOPS_AT": "all_reduce_time", "PATIENCE": "60"}
    ranks = nursery.start(folder, 2, program=ON_NODES, RANKS_PER_NODE="1", **trouble)
    assert _all_but(ranks, 0) == [1]
    assert "no sign of life from rank 0 on node0" in ranks.message(1)
    assert [bad["host"] for bad in events(folder, "bad node")] == ["node0"]


def test_ranks_that_do_not_come_are_named(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run(ranks=2)
    ranks = nursery.start(folder, 2, program=ON_NODES, PATIENCE="2", ABSENT="1")
    assert ranks.wait() == [1, 0]
    assert ranks.message() == "1 of 2 ranks did not come within 2 s: rank 1 did not start"


def _all_but(ranks: Ranks, frozen: int) -> list[int]:
    """The exit codes of the others; then the frozen one is killed, as its launcher would."""
    pid = ranks.pids[frozen]
    others: dict[str, Any] = {"wait": [other for other in ranks.pids if other != pid]}
    try:
        return ranks.nursery.ask(others)
    finally:
        os.kill(pid, signal.SIGKILL)
        ranks.nursery.ask({"wait": [pid]})
