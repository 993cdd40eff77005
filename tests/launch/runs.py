"""A run of stand-ins for the trainer, started here by another process, as a person has it in another window."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aiftrain.run.folder import RunFolder, append_line, read_lines
from tests.conftest import small_execution

ROOT = Path(__file__).resolve().parents[2]
_START = """
import sys
from rich.console import Console
from aiftrain.launch.local import run_local
from aiftrain.run.folder import RunFolder
from tests.conftest import small_execution
sys.exit(run_local(RunFolder(sys.argv[1]), small_execution(2), Console(), module="tests.launch.stand_in"))
"""
LONG = {"does": "steps", "steps": 600, "seconds": 0.1}


def planned(folder: RunFolder) -> RunFolder:
    """The run with the plan that its ranks would read."""
    folder.write_json(folder.plan_json, {"execution": small_execution().model_dump(mode="json")})
    return folder


@contextmanager
def trained_here(folder: RunFolder) -> Iterator[subprocess.Popen[bytes]]:
    """Two ranks that take steps until they are asked to leave."""
    (planned(folder).path / "behaviour.json").write_text(json.dumps({"0": LONG, "1": LONG}))
    process = subprocess.Popen([sys.executable, "-c", _START, str(folder.path)], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        until(lambda: len(list(folder.logs.glob("*/rank-*.start.json"))) == 2 and any(read_lines(folder.metrics)))
        yield process
    finally:
        process.terminate()
        process.wait(60)


def until(condition: Callable[[], bool], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


class Screen:
    """What a command in this process has printed so far, for the thread that plays the run it looks at."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    @property
    def text(self) -> str:
        self._text += self._capsys.readouterr().out
        return self._text


def attempt(folder: RunFolder, number: int, codes: dict[int, int | None], log: str = "") -> None:
    """What an attempt on another host left: each rank's exit code, None where it left no word; rank 0's log."""
    logs = folder.attempt_logs(number)
    logs.mkdir(parents=True)
    for rank, code in codes.items():
        note: dict[str, object] = {"rank": rank, "host": "elsewhere", "time": 1.0}
        (logs / f"rank-{rank:05d}.start.json").write_text(json.dumps(note | {"pid": 1}))
        if code is not None:
            message = "" if code in (0, 75) else "the disk is full"
            (logs / f"rank-{rank:05d}.exit.json").write_text(json.dumps(note | {"exit_code": code, "message": message}))
    (logs / "rank-00000.log").write_text(log, encoding="utf-8")


def step(folder: RunFolder, number: int, attempt: int = 1) -> None:
    record = {"step": number, "attempt": attempt, "time": number * 2.0, "tokens": number * 128, "loss": 5.0}
    append_line(folder.metrics, record | {"grad_norm": 0.5, "lr": 1e-3, "tokens_per_s": 64.0})
