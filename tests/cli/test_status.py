"""`status`: what is said of runs that train here, have ended, or were never started; for anyone who may read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiftrain.cli.main import main
from aiftrain.run.folder import RunFolder, append_line
from aiftrain.run.lock import RunLock
from tests.conftest import small_spec
from tests.launch.runs import attempt, planned, step, trained_here

ROOT = Path(__file__).resolve().parents[2]
_NO_ROOT = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]  # root obeys file modes


def told(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["status", *words, "--json"]) == 0
    runs: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["runs"]
    return runs


def test_a_run_that_was_never_started(run_folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    [run] = told(capsys, str(run_folder.path))
    assert (run["state"], run["attempt"], run["step"], run["total_steps"], run["loss"]) == (
        "not started",
        0,
        0,
        20,
        None,
    )


@pytest.mark.parametrize(
    ("codes", "state", "detail"),
    [
        ({0: 0, 1: 0}, "finished", ""),
        ({0: 75, 1: 75}, "stopped early", "everything is saved"),
        ({0: 1, 1: None}, "failed", "rank 0: the disk is full"),
        ({0: None, 1: None}, "failed", "rank 0 vanished"),
    ],
)
def test_what_became_of_the_newest_attempt(
    codes: dict[int, int | None], state: str, detail: str, run_folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt(planned(run_folder), 1, {0: None, 1: None})
    attempt(run_folder, 2, codes)
    for number in (1, 2, 3):
        step(run_folder, number, attempt=2)
    append_line(run_folder.events, {"time": 5.0, "attempt": 2, "event": "saved", "step": 2, "bytes": 1, "seconds": 1.0})
    [run] = told(capsys, str(run_folder.path))
    assert (run["state"], run["attempt"], run["step"], run["checkpoint"]) == (state, 2, 3, 2)
    assert (run["loss"], run["tokens_per_s"], run["seconds_left"]) == (5.0, 64.0, None)
    assert detail in run["detail"]
    assert run["event"].startswith("saved step 2")


def test_what_the_guard_did(run_folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    attempt(planned(run_folder), 1, {0: None, 1: None})
    numbers = {"time": 1.0, "attempt": 1, "trouble": "loss_spike", "loss": 9.0, "grad_norm": 1.0, "limit": 2.5}
    append_line(run_folder.events, numbers | {"event": "skip", "step": 7, "skipped": 3})
    assert (told(capsys, str(run_folder.path))[0]["skipped"], told(capsys, str(run_folder.path))[0]["rollbacks"]) == (
        3,
        0,
    )
    rollback = {"event": "rollback", "step": 8, "to_step": 5, "skipped": 2, "rollbacks": 1}
    append_line(run_folder.events, numbers | rollback)
    assert main(["status", str(run_folder.path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "skipped steps: 2, rollbacks: 1" in shown
    assert "step 8: loss spike (loss 9, gradient norm 1, limit 2.5); back to step 5" in shown


@pytest.mark.ranks
def test_a_run_that_trains_here(run_folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with trained_here(run_folder):
        [run] = told(capsys, str(run_folder.path))
        assert run["state"] == "running"
        assert 1 <= run["step"] < 600
        assert "2 processes" in run["detail"]


def test_the_lock_tells_who_trains_a_run(run_folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    lock = RunLock(run_folder.lock)
    lock.acquire()
    step(run_folder, 1, attempt=0)
    step(run_folder, 2, attempt=0)
    assert main(["status", str(run_folder.path)]) == 0
    shown = capsys.readouterr().out
    assert f"running: process {os.getpid()} on" in shown
    assert "2 of 20" in shown
    assert "36 s" in shown
    lock.release()
    assert told(capsys, str(run_folder.path))[0]["state"] == "not started"


def test_all_runs_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["status"]) == 0
    assert "no runs under runs/" in capsys.readouterr().out
    for name in ("first", "small/0123456789ab"):
        folder = RunFolder(Path("runs") / name)
        folder.write(folder.run_json, small_spec().model_dump_json())
    assert [run["run"] for run in told(capsys)] == ["runs/first", "runs/small/0123456789ab"]
    assert main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["runs/first", "not", "started"],
        ["runs/small/0123456789ab", "not", "started"],
    ]


def test_a_run_that_cannot_be_read_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        folder = RunFolder(Path("runs") / name)
        folder.write(folder.run_json, small_spec().model_dump_json())
    Path("runs/first/run.json").write_text("{")
    assert main(["status", "--json"]) == 0
    told = capsys.readouterr()
    assert [run["run"] for run in json.loads(told.out)["runs"]] == ["runs/second"]
    assert "runs/first/run.json cannot be read as a run" in told.err
    assert main(["status", "runs/first"]) == 2


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 2
    assert "no run folder" in capsys.readouterr().err


@pytest.fixture
def foreign() -> Iterator[RunFolder]:
    """Another person's run, which everybody may read and nobody else write."""
    root = Path(tempfile.mkdtemp(prefix="aiftrain-foreign-"))
    folder = RunFolder(root / "run")
    folder.write(folder.run_json, small_spec().model_dump_json())
    attempt(planned(folder), 1, {0: 0, 1: 0}, log="of another person\n")
    step(folder, 1)
    RunLock(folder.lock).check()
    for path in (root, *root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in (root, *root.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(root)


def as_another(*words: str) -> subprocess.CompletedProcess[str]:
    """A command of a member of the team who may not write."""
    prefix = _NO_ROOT if os.getuid() == 0 else []
    return subprocess.run(
        [*prefix, sys.executable, "-m", "aiftrain", *words],
        cwd="/",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_who_may_read_a_run_sees_its_status_and_logs(foreign: RunFolder) -> None:
    status = as_another("status", str(foreign.path), "--json")
    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["runs"][0]["state"] == "finished"
    logs = as_another("logs", str(foreign.path))
    assert (logs.returncode, logs.stdout) == (0, "of another person\n"), logs.stderr


def test_who_may_not_read_a_run_is_told_so(foreign: RunFolder) -> None:
    foreign.run_json.chmod(0o000)
    status = as_another("status", str(foreign.path))
    assert (status.returncode, status.stdout) == (1, "")
    assert "run.json: Permission denied" in status.stderr


@pytest.mark.parametrize("closed", ["metrics.jsonl", "events.jsonl", "lock", "logs/attempt-001"])
def test_what_may_not_be_read_of_a_run_is_named(closed: str, foreign: RunFolder) -> None:
    append_line(foreign.events, {"time": 5.0, "attempt": 1, "event": "saved", "step": 2})
    (foreign.path / closed).chmod(0o000)
    for verb in ("status", "logs"):
        told = as_another(verb, str(foreign.path))
        assert "Traceback" not in told.stderr
        assert told.returncode == 0 or f"{closed.split('/')[0]}" in told.stderr
        assert told.returncode in (0, 1)
