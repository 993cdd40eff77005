"""A rank that is really slow, as the kernel lets it run only part of the time, is named; ranks alike are not."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from aiftrain.report.events import describe
from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import Nursery, events, losses

pytestmark = [pytest.mark.ranks, pytest.mark.slow]
EVERY = 5


@contextmanager
def slowed(pid: int, run: float = 0.004, stop: float = 0.016) -> Iterator[None]:
    """Let the process run a fifth of the time, in turns shorter than a forward pass."""
    done = threading.Event()

    def turns() -> None:
        while not done.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(stop)
            os.kill(pid, signal.SIGCONT)
            time.sleep(run)

    thread = threading.Thread(target=turns)
    thread.start()
    yield
    done.set()
    thread.join()


def test_a_slow_rank_is_named(nursery: Nursery, new_run: Callable[..., RunFolder]) -> None:
    size = ("train.sequence_length=256", "train.micro_batch=4", "storage.save_every=1000", "train.evaluate_batches=0")
    folder = new_run("train.steps=1000", f"train.straggler_every={EVERY}", *size)
    ranks = nursery.start(folder, 2)
    ranks.until(lambda: max(losses(folder), default=0) > EVERY)

    def told() -> list[dict[str, Any]]:
        """On a busy machine it may have been slow before it was made so."""
        return [event for event in events(folder, "straggler") if event["ranks"] == [1]]

    with slowed(ranks.pids[1]):
        ranks.until(lambda: bool(told()))
        reached = max(losses(folder))
        ranks.until(lambda: max(losses(folder)) > reached + EVERY)
    ranks.kill()
    straggler = told()[0]
    assert straggler["host"] == os.uname().nodename
    assert straggler["ratio"] > 1.25 and straggler["step"] % EVERY == 0
    assert describe(straggler) == (
        f"rank 1 on {os.uname().nodename} took {straggler['ratio']} times as long as others by step {straggler['step']}"
    )
