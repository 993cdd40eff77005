"""launchers/stage.sh under bash: real archives are unpacked; stand-ins for sbcast and for srun, which runs here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aiftrain.launch.packing import pack
from aiftrain.launch.script import render
from aiftrain.run.folder import RunFolder
from tests.launch.test_script import layout, lumi_spec, stub

# Options end where the command begins. A rank says which Python it is, and from where.
SRUN = """
words = [word for word in sys.argv[1:] if not word.startswith('--')]
os.execvp(words[0], words)
"""
RANK = "import sys; print(sys.executable, file=open(sys.argv[-1] + '/ran', 'a'))"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An environment whose aiftrain.train says that it ran."""
    venv, archive = tmp_path / "venv", tmp_path / "it's packed.tar"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    package = next(venv.glob("lib/python3*/site-packages")) / "aiftrain"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "train.py").write_text(RANK)
    pack(venv, archive)
    return archive


def execute(archive: Path, tmp_path: Path, sbcast: str) -> tuple[subprocess.CompletedProcess[str], RunFolder]:
    run, node = RunFolder(tmp_path / "run"), tmp_path / "disk of a node"
    run.write(run.run_json, "{}")
    node.mkdir()
    (tmp_path / "bin").mkdir()
    stub(tmp_path / "bin", "srun", SRUN)
    stub(tmp_path / "bin", "scontrol", "print('nid5')")
    stub(tmp_path / "bin", "squeue", "print('RUNNING 1:00:00 0')")
    stub(tmp_path / "bin", "sbcast", sbcast)
    spec = lumi_spec({"container": None}, launcher={"name": "slurm", "env_archive": str(archive)}, nodes=1)
    (tmp_path / "job.sh").write_text(render(spec, layout(spec), run).replace("export PYTHONPATH=", "export UNUSED="))
    given = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(node)}
    given |= {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "nid5", "SLURM_JOB_NUM_NODES": "1"}
    done = subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=given, capture_output=True, text=True)
    assert not list(node.iterdir()), "nothing stays on the node"
    return done, run


@pytest.mark.parametrize("sbcast", ["import shutil; shutil.copy(*sys.argv[-2:])", "sys.exit('sbcast: not here')"])
def test_ranks_run_the_packed_python_from_the_disk_of_the_node(sbcast: str, archive: Path, tmp_path: Path) -> None:
    done, run = execute(archive, tmp_path, sbcast)
    assert done.returncode == 0, done.stderr
    assert (run.path / "ran").read_text() == f"{tmp_path}/disk of a node/aiftrain-4711/bin/python\n"


def test_a_python_that_is_not_on_the_node_is_named(archive: Path, tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/not/here/python3.11")
    (tmp_path / "venv" / "pyvenv.cfg").write_text("home = /not/here\n")
    pack(tmp_path / "venv", archive)
    done, run = execute(archive, tmp_path, "sys.exit(1)")
    assert done.returncode == 1 and "home = /not/here must be there" in done.stderr
    assert not (run.path / "ran").exists()


def test_an_archive_that_is_none_ends_the_job(archive: Path, tmp_path: Path) -> None:
    archive.write_text("no archive")
    done, _ = execute(archive, tmp_path, "sys.exit(1)")
    assert done.returncode == 1 and "tar:" in done.stderr
