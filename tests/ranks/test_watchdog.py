"""A rank that stands still: the others say where they wait and end in time, and the next start goes on bit for bit."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import Nursery, events, losses

pytestmark = pytest.mark.ranks

LIMIT = 3.0  # seconds


def test_a_hang_is_noticed_told_and_survived(nursery: Nursery, new_run: Callable[..., RunFolder]) -> None:
    straight, folder = (
        new_run("train.steps=60", f"train.hang_minutes={LIMIT / 60}", "storage.background=false") for _ in range(2)
    )
    assert nursery.start(straight, 2).wait() == [0, 0]
    ranks = nursery.start(folder, 2)
    ranks.until(lambda: max(losses(folder), default=0) >= 7)
    os.kill(ranks.pids[1], signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        note = folder.attempt_logs(1) / "rank-00000.exit.json"
        ranks.until(note.is_file, seconds=3 * LIMIT)
        assert time.monotonic() - stopped > LIMIT - 1
    finally:
        os.kill(ranks.pids[1], signal.SIGKILL)  # as its launcher does, once one rank has ended
    assert ranks.wait() == [1, -signal.SIGKILL]
    assert "no step for 0.1 minutes" in ranks.message()
    log = (folder.attempt_logs(1) / "rank-00000.log").read_text()
    assert "most recent call first" in log
    assert ("rendezvous.py" in log and "in agree" in log) or "in step" in log, "it shows what the main thread waits in"
    [hang] = events(folder, "hang")
    assert hang["seconds"] >= LIMIT
    assert nursery.start(folder, 2).wait() == [0, 0]
    assert events(folder, "resume")
    assert losses(folder) == losses(straight)


def test_a_long_evaluation_is_no_hang(nursery: Nursery, new_run: Callable[..., RunFolder]) -> None:
    """Each of its two sources takes most of the limit."""
    folder = new_run("train.steps=2", f"train.hang_minutes={LIMIT / 60}", ranks=1)
    ranks = nursery.start(folder, 1, program="tests.ranks.slow_evaluation", SECONDS=str(0.7 * LIMIT))
    assert ranks.wait() == [0], ranks.log()
    assert events(folder, "hang") == [] and set(losses(folder, "validation")[2]) == {"de", "fr"}


HOLDS_THE_INTERPRETER = "tests.ranks.held_interpreter"


def test_a_rank_that_holds_the_interpreter_ends_too(nursery: Nursery, new_run: Callable[..., RunFolder]) -> None:
    folder = new_run("train.hang_minutes=0.001", ranks=1)
    ranks = nursery.start(folder, 1, program=HOLDS_THE_INTERPRETER)
    assert ranks.wait() == [1]
    log = (folder.attempt_logs(1) / "rank-00000.log").read_text()
    assert "Timeout (0:00:0" in log and "in hold" in log
    assert not (folder.attempt_logs(1) / "rank-00000.exit.json").exists(), "no thread of Python was let run"
