"""The wheel, built through an sdist and installed elsewhere: complete, and able to do what a checkout does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ("conf", "recipes", "launchers")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def shipped_files() -> set[str]:
    """Every file of conf/, recipes/ and launchers/, and constraints.txt, relative to the project."""
    files = (path for folder in SHIPPED for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in files} | {"constraints.txt"}


def modules() -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / "aiftrain").rglob("*.py")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def elsewhere(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it; everything else comes from this environment, read through a .pth file."""
    folder = tmp_path_factory.mktemp("elsewhere") / "with a blank"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    wheel = next(built.glob("*.whl"))
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run(python: Path, folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_sdist_is_complete(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert shipped_files() | modules() | {"pyproject.toml", "README.md", "constraints.txt", "Makefile"} <= names


def test_the_wheel_is_complete_and_holds_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == modules() | {"aiftrain/py.typed"} | {f"aiftrain/shipped_files/{name}" for name in shipped_files()}


def test_it_is_the_wheel_that_runs(elsewhere: Path, tmp_path: Path) -> None:
    found = run(elsewhere, tmp_path, "-c", "import aiftrain; print(aiftrain.__file__)")
    assert Path(found.strip()).is_relative_to(elsewhere.parents[1])


def test_recipes_plan_and_script_elsewhere(elsewhere: Path, tmp_path: Path) -> None:
    command = str(elsewhere.with_name("aiftrain"))
    assert "smoke" in run(elsewhere, tmp_path, command, "recipes")
    plan = json.loads(run(elsewhere, tmp_path, command, "plan", "recipe=eu-llm-7b", "factory=lumi", "--json"))
    assert plan
    overrides = ["recipe=eu-llm-7b", "factory=lumi", "account=project_1", "data.root=/data"]
    assert "#SBATCH" in run(elsewhere, tmp_path, command, "script", *overrides)
    assert not list(tmp_path.iterdir())


def test_the_smoke_recipe_trains_elsewhere(elsewhere: Path, tmp_path: Path) -> None:
    overrides = ["recipe=smoke", "train.steps=3", "run_dir=the run"]
    screen = run(elsewhere, tmp_path, "-m", "aiftrain", *overrides)
    assert "step 3/3" in screen
    assert (tmp_path / "the run" / "loss.png").is_file()
