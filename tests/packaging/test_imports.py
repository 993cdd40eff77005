"""The import rule: the contracts hold, and everything outside train/ works where torch cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

BLOCKED = """
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "deepspeed", "mpi4py", "wandb", "transformers", "matplotlib"}:
            raise ImportError(f"blocked: {name}")

sys.meta_path.insert(0, Blocker())
import aiftrain
count = 0
for module in pkgutil.walk_packages(aiftrain.__path__, "aiftrain.", onerror=lambda name: None):
    if not module.name.startswith("aiftrain.train") and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        count += 1
print(count)
"""


def test_import_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    checked = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_everything_but_train_imports_without_torch() -> None:
    walked = subprocess.run([sys.executable, "-c", BLOCKED], cwd=ROOT, capture_output=True, text=True)
    assert walked.returncode == 0, walked.stderr
    assert int(walked.stdout) > 30
