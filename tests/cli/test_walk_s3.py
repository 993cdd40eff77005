"""All that `checkpoints` does to a bucket, one after the other, each killed at random moments and given once more.

AIFTRAIN_KILLS is about how many kills there are, for a campaign.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from aiftrain.checkpoint.places import Away, archives_in
from aiftrain.checkpoint.sealing.keys import IDENTITY_FILE, new_identity
from aiftrain.checkpoint.signing.keys import new_signing_key
from aiftrain.cli.main import main
from tests.checkpoint.test_ship_kill import forked
from tests.cli.places import SavedRun
from tests.rigs.buckets import new_bucket, open_store
from tests.rigs.ceph import CephRig

pytestmark = pytest.mark.slow
KILLS = max(1, int(os.environ.get("AIFTRAIN_KILLS", "20")) // 10)  # of each command
OPEN = {"name": "rig", "checkpoints": {"locations": ["FI"], "unknown": ["operator_seat", "owner_seat"], "seal": "none"}}


class Walk:
    """Commands that are killed, and what is looked at after each kill."""

    def __init__(self, look: Callable[[], object]) -> None:
        self._dice, self._look = random.Random(0), look
        self.killed = 0

    def __call__(self, *words: str | Path) -> None:
        """Give a command until it comes to its end; most often it is killed before."""
        window = 1.0
        for _ in range(KILLS):
            child = self._start(words)
            time.sleep(self._dice.uniform(0.0, window))
            os.kill(child, signal.SIGKILL)
            if not self._came_to_its_end(child):
                self.killed += 1
            else:
                window *= 0.7
            self._look()
        assert self._came_to_its_end(self._start(words)), words
        self._look()

    def _start(self, words: tuple[str | Path, ...]) -> int:
        return forked(lambda: os._exit(main(["checkpoints", *map(str, words)])))

    def _came_to_its_end(self, child: int) -> bool:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, -signal.SIGKILL)
        return code == 0


def look(open_runs: Callable[[], list[Away]]) -> None:
    """All that the bucket calls complete is."""
    for away in open_runs():
        assert [fault for step in away.archive.steps() for fault in away.verify(step)] == []


def test_a_walk_through_a_bucket(ceph: CephRig, conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    team, heir, key = (tmp_path / name for name in ("team", "heir", "key.pem"))
    for_team, for_heir = (["--recipient", new_identity(file)] for file in (team, heir))
    new_signing_key(key)
    run = SavedRun(tmp_path / "run", policy=OPEN)
    run.save(10, 20, 30)
    place = new_bucket(ceph, "team")
    bucket, mine, signed = place.address, ("--conf", str(conf)), ("--step", "30", "--public-key", f"{key}.pub")

    def runs() -> list[Away]:
        store = open_store(ceph, place)  # where a look into the bucket that was killed may have left its probe
        return archives_in(store) if any(not entry.name.startswith(".") for entry in store.entries()) else []

    walk = Walk(partial(look, runs))
    walk("copy", run.path, bucket, "--all", *mine)
    walk("sign", run.path, "--key", key)
    walk("copy", run.path, bucket, *mine)
    assert main(["checkpoints", "verify", bucket, *signed, *mine]) == 0
    walk("seal", bucket, *for_team, "--identity", team, *mine)
    walk("reseal", bucket, *for_heir, "--identity", team, *mine)
    walk("reseal", bucket, *for_team, "--identity", heir, "--new-keys", *mine)
    walk("prune", bucket, "--keep-last", "2", "--yes", *mine)
    (tmp_path / "folder").mkdir()
    walk("copy", bucket, tmp_path / "folder", "--all", *mine)
    assert main(["checkpoints", "verify", str(tmp_path / "folder"), *signed, "--identity", str(team)]) == 0
    assert walk.killed > KILLS * 8 / 4, "most commands were at their end before they were killed"

    (there,) = runs()
    assert there.archive.steps() == [20, 30] and there.custody() == run.home.custody.text()
    left = {entry.name.rpartition("/")[2] for entry in there.archive.store.entries()}
    assert not any(name.startswith(("manifest.json", "rank-")) and not name.endswith(".sealed") for name in left)
    monkeypatch.setenv(IDENTITY_FILE, str(team))
    before = {file.name: file.read_bytes() for file in run.home.step_folder(30).iterdir()}
    run.home.set_aside(30)
    assert main(["checkpoints", "copy", str(tmp_path / "folder"), run.path]) == 0
    assert {file.name: file.read_bytes() for file in run.home.step_folder(30).iterdir()} == before
