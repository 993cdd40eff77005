"""Completion: what is offered, and that real shells take it."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from aiftrain.cli.completion import offers
from tests.cli.program import ROOT


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("aiftrain pl", ["plan", "plan."]),
        ("aiftrain plan --comp", ["--compare"]),
        ("aiftrain launch --comp", []),
        ("python -m aiftrain pl", ["plan", "plan."]),
        ("python -m aiftrain plan recipe=smo", ["recipe=smoke", "recipe=smoke-eu"]),
        ("aiftrain plan recipe=smoke,smoke-", ["recipe=smoke,smoke-eu"]),
        (
            "aiftrain factory=l",
            [f"factory={name}" for name in ("leonardo", "levente", "lisa", "local", "lumi", "lumi-ai")],
        ),
        ("aiftrain recipe=smoke par", ["parallelism.", "parallelism="]),
        ("aiftrain recipe=smoke train.prec", ["train.precision="]),
        ("aiftrain recipe=smoke train.precision=", [f"train.precision={p}" for p in ("auto", "bf16", "fp16", "fp32")]),
        ("aiftrain recipe=smoke train.compile=t", ["train.compile=true"]),
        ("aiftrain data.sources.x.sp", ["data.sources.x.split="]),
        ("aiftrain nodes=", []),
        ("aiftrain data ", ["inspect", "prepare"]),
        ("aiftrain checkpoints v", ["verify"]),
        ("aiftrain hardware ", ["show"]),
        ("aiftrain hardware show mi2", ["mi250x"]),
        ("aiftrain storage ", ["check", "show"]),
        ("aiftrain storage show lum", ["lumi-o"]),
        ("aiftrain plan --j", ["--json"]),
        ("aiftrain plan 'recipe=smo", []),
    ],
)
def test_what_is_offered(line: str, offered: list[str]) -> None:
    assert offers(line) == offered


def test_runs_are_offered_where_a_run_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/first", "runs/smoke/0123456789ab"):
        Path(name).mkdir(parents=True)
        (Path(name) / "run.json").touch()
    assert offers("aiftrain logs ") == ["runs/first", "runs/smoke/0123456789ab"]
    assert offers("aiftrain cancel runs/s") == ["runs/smoke/0123456789ab"]


def test_everything_is_offered_at_first() -> None:
    assert {"plan", "launch", "recipe=", "model.", "nodes=", "train."} <= set(offers("python -m aiftrain "))


TYPED = [
    ("python -m aiftrain plan recipe=smoke-\t", "recipe=smoke-eu"),
    ("python -m aiftrain factories show leo\t", "factories show leonardo"),
    ("python -m aiftrain model.num_l\t", "model.num_layers="),
    ("python only-\t", "only-here.txt"),
]
SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}


@pytest.mark.parametrize("verb", ["status", "watch", "profile", "logs", "cancel", "ship", "egress", "sample"])
def test_a_verb_that_takes_a_run_offers_those_that_are_here(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path("runs", "smoke", "0123456789ab")
    (tmp_path / run).mkdir(parents=True)
    (tmp_path / run / "run.json").touch()
    monkeypatch.chdir(tmp_path)
    assert offers(f"aiftrain {verb} ") == [str(run)]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("typed", "completed"), TYPED)
def test_a_real_shell_completes(shell: str, typed: str, completed: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}: apt-get install {shell}")
    (tmp_path / "only-here.txt").touch()
    python = tmp_path / "python"  # no link: through one Python would not find its environment's packages
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    assert completed in _type(shell, tmp_path, typed, completed)


def _type(shell: str, folder: Path, typed: str, awaited: str) -> str:
    """What an interactive shell with our completion shows after `typed`, until `awaited` is there or long after."""
    environ = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(shell, SHELLS[shell], environ | {"PS1": "$ ", "TERM": "dumb", "COLUMNS": "200"})
    try:
        os.write(terminal, f'eval "$(python -m aiftrain --completion {shell})"; echo rea""dy\n'.encode())
        _read_until(terminal, "ready\r\n")
        os.write(terminal, typed.encode())
        return _read_until(terminal, awaited)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def _read_until(terminal: int, awaited: str) -> str:
    """What the terminal shows until it has shown `awaited`, for 20 seconds at most."""
    shown, deadline = "", time.monotonic() + 20
    while awaited not in shown and (left := deadline - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
    return shown
