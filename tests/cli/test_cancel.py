"""`cancel`: ranks here save and leave, or are killed; elsewhere and nowhere are told apart."""

from __future__ import annotations

import json
import os

import pytest

from aiftrain.cli.main import main
from aiftrain.run.folder import RunFolder
from aiftrain.run.lock import RunLock
from tests.launch.runs import trained_here


@pytest.mark.ranks
def test_ranks_here_save_and_leave(run_folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with trained_here(run_folder) as launcher:
        assert main(["cancel", str(run_folder.path)]) == 0
        assert "2 ranks on this machine: they save and leave" in capsys.readouterr().out
        assert launcher.wait(30) == 75
    assert sorted(file.name for file in run_folder.attempt_logs(1).glob("saved-*")) == ["saved-0", "saved-1"]


@pytest.mark.ranks
def test_now_means_now(run_folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with trained_here(run_folder) as launcher:
        assert main(["cancel", str(run_folder.path), "--now", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["cancelled"] is True
        assert launcher.wait(30) == 1
    assert not list(run_folder.attempt_logs(1).glob("saved-*"))


def test_a_run_on_another_host_is_not_reached_from_here(
    run_folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = RunLock(run_folder.lock)
    lock.acquire()
    run_folder.lock.write_text(json.dumps({"pid": 4711, "host": "uan02", "since": 0}))
    assert main(["cancel", str(run_folder.path)]) == 2
    assert "is trained by process 4711 on uan02" in capsys.readouterr().err
    lock.release()


def test_nothing_to_cancel_is_no_error(run_folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cancel", str(run_folder.path)]) == 0
    assert "nothing of" in capsys.readouterr().out


def test_a_note_of_an_attempt_that_died_leads_to_no_stranger(run_folder: RunFolder) -> None:
    """A rank that was killed leaves its process id, which may be another process's by now: this one's."""
    logs = run_folder.attempt_logs(1)
    logs.mkdir(parents=True)
    note = {"rank": 0, "pid": os.getpid(), "host": os.uname().nodename}
    (logs / "rank-00000.start.json").write_text(json.dumps(note))
    assert main(["cancel", str(run_folder.path), "--now"]) == 0
