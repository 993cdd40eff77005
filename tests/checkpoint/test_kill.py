"""kill -9 at any moment of saving and of retention: the newest checkpoint is whole, and the next start goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import aiftrain
from aiftrain.checkpoint.catalog import Catalog

KILLS = 40
NEVER = 1_000_000  # a file operation that no child comes to


class Saver:
    """The other end of saver.py's pipes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, operation: int = 0) -> int:
        """Start a child that dies before its n-th file operation (0: lives until it is killed); its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{operation}\n")
        self._process.stdin.flush()
        return self._answer()

    def wait(self) -> int:
        """The signal that ended the child, 0 where it came to its end."""
        return os.WTERMSIG(self._answer())

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@pytest.fixture
def saver(catalog: Catalog) -> Iterator[Saver]:
    command = [sys.executable, str(Path(__file__).with_name("saver.py")), str(catalog.folder)]
    environment = os.environ | {"PYTHONPATH": str(Path(aiftrain.__file__).parents[1])}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Saver(process)


def check_whole(catalog: Catalog, keep_every: int) -> int:
    """All checkpoints verify and hold their step; those retention must keep are there. The newest step, 0 for none."""
    entries = catalog.entries()
    for entry in entries:
        assert catalog.verify(entry.step) == []
        size = entry.reader().shapes["values"][0]
        assert np.all(entry.reader().read("values", "weight", 0, size) == entry.step)
        assert all(int(entry.reader().extra(rank)["step"]) == entry.step for rank in range(3))
    latest = catalog.latest()
    newest = latest.step if latest else 0
    steps = {entry.step for entry in entries}
    assert steps >= {step for step in range(1, newest + 1) if step % keep_every == 0 or step > newest - 2}
    return newest


def seconds_of_a_save(saver: Saver) -> float:
    """How long one save takes here and now, so that kills fall into saves on a slow machine too."""
    for _ in range(2):  # the first time the interpreter's start is in it
        started = time.monotonic()
        saver.start(NEVER)
        assert saver.wait() == 0
    return (time.monotonic() - started) / 3


def test_killed_at_random_moments(catalog: Catalog, saver: Saver) -> None:
    dice = random.Random(0)
    one_save = seconds_of_a_save(saver)
    newest = 0
    for _ in range(KILLS):
        child = saver.start()
        time.sleep(dice.uniform(0.0, 4 * one_save))
        os.kill(child, signal.SIGKILL)
        assert saver.wait() == signal.SIGKILL
        reached = check_whole(catalog, keep_every=5)
        assert reached >= newest, "a complete checkpoint was lost"
        newest = reached
    assert newest > KILLS / 4, "the runs did not go on"


def test_killed_before_every_file_operation(catalog: Catalog, saver: Saver) -> None:
    """Not by chance but one by one: each state that a save, a removal or a clearing away passes through."""
    newest = 0
    for operation in range(1, 300):
        saver.start(operation)
        ended_by = saver.wait()
        reached = check_whole(catalog, keep_every=10_000)
        assert reached >= newest, f"a complete checkpoint was lost by a kill before file operation {operation}"
        newest = reached
        if ended_by == 0:
            break
    assert operation > 30, "the child came to its end too early for this test to mean anything"
    assert catalog.steps() == [entry.step for entry in catalog.entries()], "leftovers stayed"
