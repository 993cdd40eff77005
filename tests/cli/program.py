"""Runs `python -m aiftrain` as a person would: another process, another folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Stands before the program: as if these were not installed.
_BLOCK = """
import runpy, sys
from importlib.machinery import PathFinder
class Without:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in ("torch", "deepspeed", "mpi4py", "wandb"):
            return PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
sys.argv[0] = "aiftrain"
runpy.run_module("aiftrain", run_name="__main__", alter_sys=True)
"""


def aiftrain(
    *words: str, cwd: Path, blocked: bool = False, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """One command. `blocked`: torch, deepspeed, mpi4py and wandb cannot be imported."""
    start = ["-c", _BLOCK] if blocked else ["-m", "aiftrain"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    return subprocess.run(
        [sys.executable, *start, *words],
        cwd=cwd,
        env=inherited | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"} | dict(environ or {}),
        capture_output=True,
        text=True,
        timeout=120,
    )
