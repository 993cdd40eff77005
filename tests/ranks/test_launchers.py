"""One recipe, whichever launcher starts it: the same losses, to the last bit. Real launchers, the real trainer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import TINY, losses
from tests.rigs.mpi import INSTALL, INSTALL_INTEL, INTEL, MPIEXECS, NAMES, OPENMPI, is_missing, library_path

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.slow,
    pytest.mark.skipif(is_missing(*MPIEXECS[:3]), reason=INSTALL),
    pytest.mark.skipif(is_missing(INTEL), reason=INSTALL_INTEL),
]


def start(
    tmp_path: Path, name: str, *overrides: str, command: str = OPENMPI
) -> tuple[RunFolder, subprocess.Popen[str]]:
    """`python -m aiftrain` with the tiny recipe, in a folder of its own with a name to quote."""
    folder = RunFolder(tmp_path / f"{name} mit $HOME")
    given = os.environ | library_path(command, tmp_path)
    own = [f'run_dir="{folder.path}"', "launcher.ranks_per_node=4", "train.micro_batch=1", *overrides]
    words = [sys.executable, "-m", "aiftrain", *TINY, *own]
    process = subprocess.Popen(words, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return folder, process


def trained(tmp_path: Path, name: str, *overrides: str, command: str = OPENMPI) -> dict[int, float]:
    folder, process = start(tmp_path, name, *overrides, command=command)
    screen, _ = process.communicate(timeout=200)
    assert process.returncode == 0, screen
    return losses(folder)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of launcher=local."""
    found = trained(tmp_path_factory.mktemp("local"), "local", "launcher=local")
    assert len(found) == 20
    return found


def test_every_launcher_gives_the_losses_of_launcher_local(local: dict[int, float], tmp_path: Path) -> None:
    others = {
        name: trained(tmp_path, name, "launcher=mpi", f"launcher.mpiexec={command}", command=command)
        for name, command in zip(NAMES, MPIEXECS, strict=True)
    }
    others["deepspeed"] = trained(tmp_path, "deepspeed", "launcher=deepspeed")
    assert others == dict.fromkeys(others, local)


def test_the_script_by_hand_gives_them_too_stopped_and_gone_on_with(local: dict[int, float], tmp_path: Path) -> None:
    """The command line is interrupted; job.sh goes on alone, as on a machine where no aiftrain submits."""
    folder, process = start(tmp_path, "by hand", "launcher=mpi")
    deadline = time.monotonic() + 90
    while 3 not in losses(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 75
    again = subprocess.run(["bash", folder.job_sh], cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert losses(folder) == local
