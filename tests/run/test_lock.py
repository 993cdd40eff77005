"""The lock of a run folder: one holder, named; free again when its holder dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from aiftrain.errors import MachineError, UserError
from aiftrain.run.lock import RunLock, read_holder

HOLD = """
import sys, time
from pathlib import Path
from aiftrain.run.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


def hold(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_holder_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = hold(path)
    try:
        for attempt in (RunLock(path).acquire, RunLock(path).check):
            with pytest.raises(UserError, match=f"process {process.pid} on .*, since 20"):
                attempt()
    finally:
        process.kill()
        process.wait()


def test_a_killed_holder_leaves_the_lock_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = hold(path)
    process.kill()
    process.wait()
    RunLock(path).check()
    lock = RunLock(path)
    lock.acquire()
    holder = read_holder(path)
    assert holder is not None and holder.pid == os.getpid()
    lock.release()
    RunLock(path).check()


def test_a_glance_at_the_lock_disturbs_nobody(tmp_path: Path) -> None:
    glance = RunLock(tmp_path / "lock")
    glance.acquire()
    threading.Timer(0.1, glance.release).start()
    started = time.monotonic()
    RunLock(tmp_path / "lock").acquire()
    assert time.monotonic() - started < 0.5


def test_a_shorter_note_replaces_a_longer_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("x" * 500)
    assert read_holder(path) is None
    lock = RunLock(path)
    lock.acquire()
    assert json.loads(path.read_text())["pid"] == os.getpid()
    lock.release()


def test_a_folder_that_is_not_there_is_the_machines_fault(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cannot open"):
        RunLock(tmp_path / "none" / "lock").acquire()
