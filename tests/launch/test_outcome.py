"""Which of many endings is the cause, and which exit code it becomes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiftrain.launch.outcome import Outcome, judge, last_lines, read_ends

PEER = "RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:41234"


def end(logs: Path, rank: int, code: int | None, message: str = "", time: float = 0.0) -> None:
    (logs / f"rank-{rank:05d}.start.json").write_text(json.dumps({"rank": rank, "pid": 1}))
    if code is not None:
        note = {"rank": rank, "time": time, "exit_code": code, "message": message}
        (logs / f"rank-{rank:05d}.exit.json").write_text(json.dumps(note))


def judged(logs: Path, world_size: int, *, stop_asked: bool = False, killed_by_memory: bool = False) -> Outcome:
    return judge(logs, world_size, stop_asked=stop_asked, killed_by_memory=killed_by_memory)


def test_all_done(tmp_path: Path) -> None:
    end(tmp_path, 0, 0)
    end(tmp_path, 1, 0)
    assert judged(tmp_path, 2).exit_code == 0


def test_the_earliest_failure_wins(tmp_path: Path) -> None:
    end(tmp_path, 0, 1, "second", time=2.0)
    end(tmp_path, 1, 1, "first", time=1.0)
    outcome = judged(tmp_path, 2)
    assert (outcome.exit_code, outcome.message) == (1, "rank 1: first")
    assert outcome.log == tmp_path / "rank-00001.log"


def test_a_consequence_never_hides_the_cause(tmp_path: Path) -> None:
    end(tmp_path, 0, 1, PEER, time=1.0)
    end(tmp_path, 1, 1, "ValueError: loss is not finite", time=2.0)
    assert judged(tmp_path, 2).message == "rank 1: ValueError: loss is not finite"


def test_a_vanished_rank_is_the_cause_of_consequences(tmp_path: Path) -> None:
    end(tmp_path, 0, 1, PEER, time=1.0)
    end(tmp_path, 1, None)
    assert "rank 1 vanished" in judged(tmp_path, 2).message
    assert "out of memory" in judged(tmp_path, 2, killed_by_memory=True).message


def test_consequences_alone_are_still_a_failure(tmp_path: Path) -> None:
    end(tmp_path, 0, 1, PEER)
    end(tmp_path, 1, 0)
    assert judged(tmp_path, 2).exit_code == 1


@pytest.mark.parametrize(("code", "becomes"), [(2, 2), (1, 1), (3, 1), (134, 1)])
def test_exit_codes(tmp_path: Path, code: int, becomes: int) -> None:
    end(tmp_path, 0, code, "why")
    assert judged(tmp_path, 1).exit_code == becomes


def test_ranks_that_never_started_point_to_the_launchers_log(tmp_path: Path) -> None:
    end(tmp_path, 0, 0)
    outcome = judged(tmp_path, 2)
    assert (outcome.exit_code, outcome.log) == (1, tmp_path / "launcher.log")
    assert "1 of 2 ranks did not start" in outcome.message


def test_stopped_and_saved(tmp_path: Path) -> None:
    end(tmp_path, 0, 75)
    end(tmp_path, 1, 75)
    for asked in (True, False):  # a signal may reach the ranks without us
        outcome = judged(tmp_path, 2, stop_asked=asked)
        assert outcome.exit_code == 75 and "everything is saved" in outcome.message


def test_stopped_without_saving_says_so(tmp_path: Path) -> None:
    end(tmp_path, 0, None)
    end(tmp_path, 1, 1, PEER)
    outcome = judged(tmp_path, 2, stop_asked=True)
    assert outcome.exit_code == 75 and "before the ranks could save" in outcome.message


def test_a_failure_while_stopping_is_a_failure(tmp_path: Path) -> None:
    end(tmp_path, 0, 1, "the disk is full")
    assert judged(tmp_path, 1, stop_asked=True).exit_code == 1


def test_a_stop_that_came_too_late_changes_nothing(tmp_path: Path) -> None:
    end(tmp_path, 0, 0)
    assert judged(tmp_path, 1, stop_asked=True).exit_code == 0


def test_a_cut_note_counts_as_none(tmp_path: Path) -> None:
    end(tmp_path, 0, 0)
    (tmp_path / "rank-00000.exit.json").write_text('{"exit_co')
    assert read_ends(tmp_path)[0].exit_code is None


def test_last_lines_survive_bytes_that_are_no_text(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(b"line %d\n" % i for i in range(20)) + b"\xff end\n")
    assert last_lines(log, 2) == ["line 19", "\\xff end"]
    assert last_lines(tmp_path / "none") == []
