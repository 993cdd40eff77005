"""Every command in the documentation runs as it stands there, in order, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OF_A_RUN = (
    "sample",
    "checkpoints",
    "bench",
    "profile",
    "--multirun",
    "status",
    "logs",
    "watch",
    "cancel",
    "env",
)  # verbs of runs that are
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def commands() -> list[str]:
    """The lines of all blocks marked `sh`."""
    blocks = (re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S) for page in PAGES)
    return [line for page in blocks for block in page for line in block.splitlines() if line]


def is_long(command: str) -> bool:
    """Whether it trains, or needs a run that was trained: these are run in the slow test."""
    words = command.split()
    return command.startswith("python -m aiftrain") and (
        "recipe=" in words[3] or words[3] in OF_A_RUN or "--calibrate" in words
    )


def asks(command: str) -> bool:
    """Whether no other command needs what it leaves: these are run in the fast test alone."""
    words = command.split()
    return command.startswith("python -m aiftrain") and not is_long(command) and words[3] not in ("data", "keys")


def run(command: str, folder: Path) -> None:
    python = folder / "bin" / "python"
    if not python.exists():
        python.parent.mkdir(exist_ok=True)
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
        python.chmod(0o755)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(folder / "config")}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr


def test_quick_commands_run(tmp_path: Path) -> None:
    quick = [command for command in commands() if not is_long(command)]
    assert len(quick) > 10
    for command in quick:
        run(command, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_long_commands_run_in_order(tmp_path: Path) -> None:
    """And those that they need something of."""
    for command in commands():
        if not asks(command):
            run(command, tmp_path)


def test_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {
        target for page in PAGES for target in re.findall(r"^    make (\w+)", page.read_text(encoding="utf-8"), re.M)
    }
    assert {"smoke", "test"} <= named
    assert all(f"\n{target}:" in makefile for target in named)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
