"""A process that saves checkpoints until it is killed: `python saver.py FOLDER`, driven by lines on standard input.

Each line forks a child, so that a kill costs no interpreter start. The line is the number of the file operation
before which the child kills itself while it saves 3 checkpoints, or 0 for a child that saves until it is killed.
Answers: the child's process id, then, once it has ended, its wait status.
Checkpoint `step` holds `step` in all its elements.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.checkpoint.shards import Fragment, shard_name, write_shard

ELEMENTS = 30_000
KEEP_EVERY = 5
CHANGES = {"os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir"}  # audit events, with "open" for writing


def save_on(catalog: Catalog, steps: Iterable[int], keep_every: int | None) -> None:
    """Save `steps` more checkpoints after the newest, as a run does."""
    catalog.adopt()
    entry = catalog.latest()
    done = entry.step if entry else 0
    for step in (done + more for more in steps):
        folder = catalog.begin(step)
        values = np.full(ELEMENTS, step, np.float32)
        files = []
        for rank, part in enumerate(np.split(values, 3)):
            fragment = Fragment("values", rank * part.size, {"weight": part})
            files.append(write_shard(folder / shard_name(rank), [fragment], {"step": np.array(step)}))
        catalog.commit(manifest(step, files))
        catalog.retain(keep_last=2, keep_every=keep_every)


def manifest(step: int, files: list[Any]) -> Manifest:
    return Manifest(
        step=step, optimizer_step=step, tokens=step, sources={}, time=time.time(), attempt=1, world_size=3,
        run_digest="x", identity={}, versions={}, shapes={"values": [ELEMENTS]}, files=files,
    )  # fmt: skip


def die_before(operation: int) -> None:
    """SIGKILL this process just before its n-th call that creates, opens for writing, renames or removes a file."""
    numbers = count(1)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if changes and next(numbers) == operation:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main() -> None:
    catalog = Catalog(Path(sys.argv[1]))
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            if int(line):
                die_before(int(line))
                save_on(catalog, range(1, 4), None)
            else:
                save_on(catalog, count(1), KEEP_EVERY)
            os._exit(0)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
