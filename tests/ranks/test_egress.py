"""What becomes of a run in which something that is not Python connects to a host that the policy does not name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aiftrain.cli.main import main
from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import Nursery, Ranks, events, losses
from tests.rigs.outside import WORLD, Outside

MAY_MAKE_NETWORKS = os.geteuid() == 0 and all(map(shutil.which, ("ip", "unshare", "nsenter", "curl")))

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.skipif(not MAY_MAKE_NETWORKS, reason="needs root, and apt-get install iproute2 util-linux curl"),
]


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    outside = Outside(tmp_path_factory.mktemp("outside"))
    yield outside
    outside.close()


def start(nursery: Nursery, folder: RunFolder, outside: Outside, notes: Path) -> Ranks:
    where = {"TALKS_FROM": str(outside.site), "TALKS_IN": str(notes), "GLOO_SOCKET_IFNAME": "lo"}
    return nursery.start(folder, 1, program="tests.ranks.talkative", **where)


def is_dead(process: int) -> bool:
    """Gone, or waiting for somebody to take note of it."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(") ")[2].startswith("Z")
    except OSError:
        return True


def test_the_run_stops_and_so_does_what_talked(
    nursery: Nursery, new_run: Callable[..., RunFolder], outside: Outside, tmp_path: Path
) -> None:
    folder = new_run("train.steps=100000", "policy.on_violation=stop", ranks=1)
    ranks = start(nursery, folder, outside, tmp_path)
    assert ranks.wait() == [2]
    assert f"policy.hosts: curl has a connection to {WORLD} by tcp, which policy=site does not allow" in ranks.message()
    assert is_dead(int((tmp_path / "pid").read_text()))
    [event] = events(folder, "egress")
    assert (event["process"], event["address"], event["port"], event["outcome"]) == ("curl", WORLD, 443, "forbidden")


def test_where_the_policy_only_records_it_the_run_goes_on_and_the_verb_shows_it(
    nursery: Nursery,
    new_run: Callable[..., RunFolder],
    outside: Outside,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = new_run(ranks=1)
    assert start(nursery, folder, outside, tmp_path).wait() == [0]
    assert max(losses(folder)) == 20
    assert len(events(folder, "egress")) == 1
    assert main(["egress", str(folder.path), "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert not shown["kept"]
    first, *others = shown["contacts"]
    assert (first["process"], first["address"], first["outcome"]) == ("curl", WORLD, "forbidden")
    assert first["by"] == ["rank-00000"] and first["last"] >= first["first"]
    assert {other["rule"] for other in others} == {"this machine"}, "ranks among themselves are not listed by port"
    assert main(["egress", str(folder.path)]) == 1
    assert f"{WORLD}" in capsys.readouterr().out


def test_ranks_that_keep_to_themselves_have_a_record_that_says_so(
    nursery: Nursery, new_run: Callable[..., RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = new_run("train.steps=5", ranks=2)
    assert main(["egress", str(folder.path)]) == 0
    assert "no record yet" in capsys.readouterr().out
    assert nursery.start(folder, 2).wait() == [0, 0]
    assert main(["egress", str(folder.path), "--json"]) == 0
    contacts = json.loads(capsys.readouterr().out)["contacts"]
    assert {contact["rule"] for contact in contacts} == {"this machine"}
    assert {writer for contact in contacts for writer in contact["by"]} == {"rank-00000", "rank-00001"}
