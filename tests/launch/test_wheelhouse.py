"""`env wheelhouse`: what is fetched with a network installs without one, and plans there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import aiftrain
from aiftrain.errors import MachineError, UserError
from aiftrain.launch.wheelhouse import make_wheelhouse

ALONE = [] if os.getuid() == 0 else ["--map-root-user"]


def run(folder: Path, *command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "PIP_"))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheelhouse_installs_and_plans_without_a_network(tmp_path: Path) -> None:
    house, venv = tmp_path / "wheel house", tmp_path / "made there"
    wheels = make_wheelhouse(house, "x86_64", [], [])
    assert any(wheel.name.startswith("antlr4") for wheel in wheels), "which exists as source only"
    assert all("any" in wheel.name or "manylinux_2_17_x86_64" in wheel.name or "2_28" in wheel.name for wheel in wheels)
    offline = ["unshare", *ALONE, "--net"]
    run(tmp_path, *offline, "sh", str(house / "install.sh"), str(venv), sys.executable)
    python = str(venv / "bin" / "python")
    assert "smoke" in run(tmp_path, *offline, python, "-m", "aiftrain", "plan", "recipe=smoke")
    own = run(tmp_path, python, "-c", "import aiftrain; print(aiftrain.__file__)")
    assert Path(own).is_relative_to(venv)


def test_without_a_checkout_the_wheel_of_aiftrain_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiftrain.launch.wheelhouse.checkout", lambda: None)
    with pytest.raises(UserError, match="copy the wheel of aiftrain"):
        make_wheelhouse(tmp_path, "x86_64", [], [])
    (tmp_path / f"aiftrain-{aiftrain.__version__}-py3-none-any.whl").touch()
    with pytest.raises(MachineError, match=r"pip install failed(.|\n)*no such option: --what"):
        make_wheelhouse(tmp_path, "x86_64", [], ["--what"])
