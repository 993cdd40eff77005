"""Helpers of the tests that have job.sh start ranks: a Python whose trainer is the stand-in, and watched runs."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from aiftrain.launch.local import run_local
from aiftrain.launch.script import render
from aiftrain.run.folder import RunFolder
from aiftrain.run.process import runs
from tests.conftest import small_execution, small_spec

REPOSITORY = Path(__file__).parents[2]


def stand_in_python(folder: Path) -> Path:
    """A program that takes Python's arguments; `-m aiftrain.train` runs the stand-in instead of the trainer."""
    python = shlex.quote(sys.executable)
    file = folder / "python with stand-in"
    file.write_text(
        f'#!/bin/bash\nexport PYTHONPATH={shlex.quote(str(REPOSITORY))}"${{PYTHONPATH:+:$PYTHONPATH}}"\n'
        f'if [[ $2 == aiftrain.train ]]; then exec {python} -m tests.launch.stand_in "$@"; fi\nexec {python} "$@"\n'
    )
    file.chmod(0o755)
    return file


def scripted_run(
    tmp_path: Path, launcher: dict[str, Any], *behaviours: dict[str, object], nodes: int = 1, **changes: Any
) -> RunFolder:
    """A run folder with job.sh, in a path with much to quote; `behaviours` are of its ranks, in their order."""
    folder = RunFolder(tmp_path / "ein 50%h läuf; $HOME")
    world, python = len(behaviours), str(stand_in_python(tmp_path))
    spec = small_spec(launcher={"ranks_per_node": world // nodes, "python": python} | launcher, nodes=nodes, **changes)
    layout = small_execution(world).layout.model_copy(update={"nodes": nodes, "ranks_per_node": world // nodes})
    folder.write(folder.run_json, spec.model_dump_json())
    folder.write(folder.job_sh, render(spec, layout, folder))
    folder.write(folder.path / "behaviour.json", json.dumps(dict(enumerate(behaviours))))
    return folder


def train(folder: RunFolder, ranks: int = 2) -> tuple[int, str]:
    """The exit code of the run, and what the screen showed."""
    screen = io.StringIO()
    code = run_local(folder, small_execution(ranks), Console(file=screen, width=120), again="again")
    return code, screen.getvalue()


def pids(folder: RunFolder) -> list[int]:
    texts = [start.read_text() for start in folder.logs.glob("attempt-*/rank-*.start.json")]
    return [json.loads(text)["pid"] for text in texts if text]


def nobody_runs(folder: RunFolder) -> bool:
    """Whether all ranks are gone; they are given a moment."""
    deadline = time.monotonic() + 10
    while any(runs(pid, str(folder.path)) for pid in pids(folder)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def saved(folder: RunFolder) -> set[str]:
    return {file.name for file in folder.attempt_logs(1).glob("saved-*")}


def when_all_are_up(folder: RunFolder, act: Callable[[], None], ranks: int = 2) -> threading.Thread:
    return when(lambda: len(pids(folder)) == ranks, act)


def when(condition: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Do `act` as soon as `condition` holds, or after a minute in any case: the test then sees what is wrong."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def start_launcher(folder: RunFolder) -> subprocess.Popen[bytes]:
    """`train` in a process of its own."""
    program = "import sys; from aiftrain.run.folder import RunFolder; from tests.launch.scripts import train;"
    words = [sys.executable, "-c", f"{program} sys.exit(train(RunFolder(sys.argv[1]))[0])", str(folder.path)]
    return subprocess.Popen(words, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
