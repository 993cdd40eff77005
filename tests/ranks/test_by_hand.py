"""launchers/local.sh in a run folder, without the command line: it trains, stops, goes on, and refuses what it must."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from aiftrain.run.folder import RunFolder
from aiftrain.run.lock import RunLock
from aiftrain.shipped import launchers_dir
from tests.ranks.conftest import losses

SCRIPT = launchers_dir() / "local.sh"


def by_hand(folder: RunFolder, **variables: str) -> subprocess.Popen[str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith(("AIFTRAIN_", "OMP_"))}
    given |= {"AIFTRAIN_PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(sys.path)} | variables
    words = ["bash", str(SCRIPT)]
    return subprocess.Popen(
        words, cwd=folder.path, env=given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.ranks
def test_a_run_is_trained_stopped_and_gone_on_with(new_run: Callable[..., RunFolder]) -> None:
    folder = new_run()
    process = by_hand(folder, AIFTRAIN_RANKS="2", OMP_NUM_THREADS="1")
    deadline = time.monotonic() + 90
    while 3 not in losses(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    assert 3 <= max(losses(folder)) < 20
    again = by_hand(folder, AIFTRAIN_RANKS="2", OMP_NUM_THREADS="1")
    assert again.wait(90) == 0, again.communicate()[1]
    assert sorted(losses(folder)) == list(range(1, 21)) and folder.last_attempt() == 2


def refused(folder: RunFolder, **variables: str) -> str:
    process = by_hand(folder, **variables)
    told = process.communicate(timeout=30)[1]
    assert process.returncode in (1, 2) and not folder.logs.exists()
    return told


def test_how_many_ranks_must_be_said(run_folder: RunFolder) -> None:
    assert "AIFTRAIN_RANKS: how many ranks there are to be" in refused(run_folder)


def test_a_run_in_use_is_left_alone(run_folder: RunFolder) -> None:
    lock = RunLock(run_folder.lock)
    lock.acquire()
    assert "is in use by another run" in refused(run_folder, AIFTRAIN_RANKS="2")
    lock.release()


def test_a_folder_without_a_run_is_told(run_folder: RunFolder) -> None:
    run_folder.run_json.unlink()
    assert f"there is no run in {run_folder.path}" in refused(run_folder, AIFTRAIN_RANKS="2")
