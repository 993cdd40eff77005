"""`env pack`: an environment that was moved runs, and what it needs from outside is said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aiftrain.errors import UserError
from aiftrain.launch.packing import pack, ties, unpack


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment with one package, in a folder with a blank."""
    folder = tmp_path / "my env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site(folder) / "packed.py").write_text("print('packed')")
    return folder


def site(venv: Path) -> Path:
    return next(venv.glob("lib/python3*/site-packages"))


def answer(venv: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command: list[str | Path] = [venv / "bin" / "python", "-m", "packed"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("ending", [".tar", ".tar.zst"])
def test_an_environment_that_was_moved_runs(ending: str, venv: Path, tmp_path: Path) -> None:
    archive = tmp_path / "made here" / f"env{ending}"
    octets: list[int] = []
    pack(venv, archive, octets.append)
    shutil.rmtree(venv)
    (tmp_path / "elsewhere").mkdir()
    unpack(archive, tmp_path / "elsewhere")
    assert answer(tmp_path / "elsewhere") == "packed\n"
    assert sum(octets) > 1000 and [file.name for file in archive.parent.iterdir()] == [archive.name]


@pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="apt-get install squashfs-tools")
def test_a_squashfs_image_holds_the_environment(venv: Path, tmp_path: Path) -> None:
    pack(venv, tmp_path / "env.sqsh")
    pack(venv, tmp_path / "env.sqsh")  # in the place of the old one, not into it
    subprocess.run(["unsquashfs", "-q", "-n", "-d", tmp_path / "out", tmp_path / "env.sqsh"], check=True)
    assert answer(tmp_path / "out") == "packed\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in venv.iterdir())


def test_what_is_needed_from_outside_is_said(venv: Path, tmp_path: Path) -> None:
    assert list(ties(venv)) == [
        f"its Python is that of {Path(sys.executable).resolve().parent}, which every node or the image must have"
    ]
    origin = site(venv) / "ours-1.0.dist-info" / "direct_url.json"
    origin.parent.mkdir()
    origin.write_text(json.dumps({"url": "file:///home/ours", "dir_info": {"editable": True}}))
    (site(venv) / "paths.pth").write_text(f"import os\n# a comment\n\n{tmp_path}\n../inside\n")
    (venv / "pyvenv.cfg").write_text("home = /opt/python/bin\ninclude-system-site-packages = true\n")
    assert list(ties(venv)) == [
        "its Python is that of /opt/python/bin, which every node or the image must have",
        "packages that it lacks are those of that Python",
        "ours is installed in place (pip install -e) and stays in /home/ours",
        f"paths.pth leads to {tmp_path}",
    ]


def test_what_cannot_be_packed_is_refused(venv: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no virtual environment: it has no pyvenv\.cfg"):
        pack(tmp_path, tmp_path / "env.tar")
    with pytest.raises(UserError, match=r"name it NAME\.tar, NAME\.tar\.zst, NAME\.sqsh"):
        pack(venv, tmp_path / "env.zip")
    with pytest.raises(UserError, match="would lie in the environment"):
        pack(venv, venv / "env.tar")
    (tmp_path / "no.tar").write_text("no archive")
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(tmp_path / "no.tar", tmp_path)
