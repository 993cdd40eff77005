"""Processes: recognised by their arguments, and ended with their parent."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from aiftrain.run.process import runs, usable_cores

PARENT = """
import subprocess, sys, time, signal
from aiftrain.run.process import die_with_parent
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                         preexec_fn=lambda: die_with_parent(signal.SIGTERM))
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_child_ends_with_a_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert runs(child)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 5
    while runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not runs(child)


def test_a_process_is_recognised_by_whole_arguments() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "größe", "b c"])
    try:
        deadline = time.monotonic() + 5
        while not runs(process.pid, "größe", "b c") and time.monotonic() < deadline:
            time.sleep(0.02)  # between fork and exec it still looks like this process
        assert runs(process.pid, "größe", "b c")
        assert not runs(process.pid, "b")
        process.kill()
        time.sleep(0.1)
        assert not runs(process.pid)  # a zombie until it is waited for
    finally:
        process.kill()
        process.wait()


def test_no_more_cores_than_the_affinity_allows() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
