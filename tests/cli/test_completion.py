"""Completion: what is offered, and that a real bash takes it."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aiftrain.cli.completion import offers
from aiftrain.cli.main import main
from tests.cli.program import ROOT


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("aiftrain pl", ["plan"]),
        ("python -m aiftrain pl", ["plan"]),
        ("python -m aiftrain plan recipe=smo", ["recipe=smoke", "recipe=smoke-eu"]),
        ("aiftrain plan recipe=smoke,smoke-", ["recipe=smoke,smoke-eu"]),
        ("aiftrain factory=", ["factory=auto", "factory=local", "factory=lumi"]),
        ("aiftrain recipe=smoke par", ["parallelism.", "parallelism="]),
        ("aiftrain recipe=smoke train.prec", ["train.precision="]),
        ("aiftrain recipe=smoke train.precision=", [f"train.precision={p}" for p in ("auto", "bf16", "fp32")]),
        ("aiftrain recipe=smoke train.compile=t", ["train.compile=true"]),
        ("aiftrain data.sources.x.sp", ["data.sources.x.split="]),
        ("aiftrain nodes=", []),
        ("aiftrain data ", ["inspect", "prepare"]),
        ("aiftrain checkpoints v", ["verify"]),
        ("aiftrain hardware ", ["show"]),
        ("aiftrain hardware show m", ["mi250x"]),
        ("aiftrain plan --j", ["--json"]),
        ("aiftrain plan 'recipe=smo", []),
    ],
)
def test_what_is_offered(line: str, offered: list[str]) -> None:
    assert offers(line) == offered


def test_everything_is_offered_at_first() -> None:
    assert {"plan", "launch", "recipe=", "model.", "nodes=", "train."} <= set(offers("python -m aiftrain "))


@pytest.mark.skipif(shutil.which("bash") is None, reason="apt-get install bash")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("python -m aiftrain plan recipe=smoke-\t", "recipe=smoke-eu"),
        ("python -m aiftrain factories show lu\t", "factories show lumi"),
        ("python -m aiftrain model.num_l\t", "model.num_layers="),
        ("python only-\t", "only-here.txt"),
    ],
)
def test_a_real_bash_completes(typed: str, completed: str, tmp_path: Path) -> None:
    (tmp_path / "only-here.txt").touch()
    (tmp_path / "python").symlink_to(sys.executable)
    assert completed in _type(tmp_path, typed, completed)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="apt-get install zsh")
def test_zsh_takes_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--completion", "zsh"])
    script = tmp_path / "completion.zsh"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    done = subprocess.run(["zsh", "-f", "-n", str(script)], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")


def _type(folder: Path, typed: str, awaited: str) -> str:
    """What an interactive bash with our completion shows after `typed`, until `awaited` is there or long after."""
    pid, terminal = pty.fork()
    if pid == 0:
        path = f"{folder}:{os.environ['PATH']}"
        environ = {
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "PS1": "$ ",
            "TERM": "dumb",
            "COLUMNS": "200",
            "HOME": str(folder),
        }
        os.chdir(folder)
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environ)
    try:
        os.write(terminal, b'eval "$(python -m aiftrain --completion bash)"; echo rea""dy\n')
        _read_until(terminal, "ready\r\n$ ")
        os.write(terminal, typed.encode())
        return _read_until(terminal, awaited)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)


def _read_until(terminal: int, awaited: str) -> str:
    """What the terminal shows until it has shown `awaited`, for 20 seconds at most."""
    shown, deadline = "", time.monotonic() + 20
    while awaited not in shown and (left := deadline - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
    return shown
