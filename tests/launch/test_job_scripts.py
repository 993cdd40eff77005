"""job.sh of the launchers mpi, deepspeed and pbs: names full of signs reach the rank; shellcheck is content."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiftrain.launch.script import render
from aiftrain.run.folder import RunFolder
from tests.conftest import small_execution, small_spec
from tests.launch.test_script import NASTY, TOOLS

LAUNCHERS = ["mpi", "deepspeed", "pbs"]

# Stands for Python: DeepSpeed's runner starts one rank, and a rank writes down what it got.
PYTHON = """
import json, os, subprocess, sys
if "deepspeed.launcher.runner" in sys.argv:
    sys.exit(subprocess.call([sys.argv[-1]]))
json.dump([sys.argv[1:], dict(os.environ), os.getcwd()], open(sys.argv[-1] + "/record.json", "w"))
"""
# Stands for mpiexec: a process of the four words at the end, which are Python's.
MPIEXEC = '#!/bin/bash\nif [[ $1 == --version ]]; then echo HYDRA; else exec "${@: -4}"; fi\n'


def executable(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


def spec_of(launcher: str, name: str, python: Path) -> Any:
    factory = {"name": "site", "title": "A site", "env": {"SITE": name}}
    return small_spec(factory=factory, recipe=name, launcher={"name": launcher, "python": str(python)})


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_nasty_names_survive(launcher: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, folder = tmp_path / f"cwd {name}", RunFolder(tmp_path / name)
    here.mkdir()
    monkeypatch.chdir(here)
    python = executable(tmp_path / f"bin {name}" / "python", f"#!{sys.executable}\n{PYTHON}")
    executable(tmp_path / "bin" / "mpiexec", MPIEXEC)
    (tmp_path / "nodes").write_text("nid1\n")
    script = render(spec_of(launcher, name, python), small_execution(1).layout, folder)
    (tmp_path / "job.sh").write_text(script)
    given = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PBS_JOBID": "7.x",
        "PBS_NODEFILE": f"{tmp_path}/nodes",
    }
    subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=given, timeout=30)
    arguments, environment, working = json.loads((folder.path / "record.json").read_text())
    assert arguments == ["-m", "aiftrain.train", str(folder.path)]
    assert (environment["SITE"], environment["AIFTRAIN_ATTEMPT"], working) == (name, "1", str(here))
    assert not list(tmp_path.rglob("hacked"))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_bench_has_its_own_program(launcher: str, tmp_path: Path) -> None:
    """The script exports it, and every launcher's body starts what is exported."""
    spec = spec_of(launcher, "x", tmp_path / "python")
    train, bench = (
        render(each, small_execution(1).layout, RunFolder(tmp_path))
        for each in (spec, spec.model_copy(update={"purpose": "bench"}))
    )
    assert "export AIFTRAIN_MODULE=aiftrain.train.bench\n" in bench
    assert "export AIFTRAIN_MODULE" not in train
    assert "${AIFTRAIN_MODULE:-aiftrain.train}" in bench


@pytest.mark.skipif(shutil.which("shellcheck", path=TOOLS) is None, reason="apt-get install shellcheck")
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_scripts_are_shellcheck_clean(launcher: str, tmp_path: Path) -> None:
    file = tmp_path / "job.sh"
    spec = spec_of(launcher, shlex.quote("it's"), tmp_path / "python")
    file.write_text(render(spec, small_execution().layout, RunFolder(tmp_path)))
    checked = subprocess.run(["shellcheck", file], capture_output=True, text=True, env={"PATH": TOOLS})
    assert checked.returncode == 0, checked.stdout
