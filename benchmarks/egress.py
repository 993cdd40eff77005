"""What the guard and the sampler take of a rank: CPU time of a look, and of an audit event that the guard hears.

    python benchmarks/egress.py [--json] [--sockets 500] [--threads 64] [--looks 200]

The process has as many connections to itself and as many idle threads as asked for, and one child. Medians.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from aiftrain.run import door
from aiftrain.run.contacts import Record
from aiftrain.run.egress import Guard
from aiftrain.run.policy import PolicySpec
from aiftrain.run.sampler import Sampler

EVENTS = 20_000


def connect(count: int, stack: contextlib.ExitStack) -> None:
    """`count` connections with both ends in this process."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=count))
    for _ in range(count):
        stack.enter_context(socket.create_connection(server.getsockname()))
        stack.enter_context(server.accept()[0])


def look_seconds(looks: int, guard: Guard, sampler: Sampler | None = None) -> float:
    """CPU time of one look of `sampler`; without one, of the first look of a new one, which reads all tables."""
    found = []
    for _ in range(looks):
        looking = sampler or Sampler(guard, lambda *_: None)
        began = time.thread_time()
        looking.look()
        found.append(time.thread_time() - began)
    return statistics.median(found)


def event_seconds() -> float:
    """Time of an audit event that nobody connects by, as every opened file raises one."""
    began = time.perf_counter()
    for _ in range(EVENTS):
        sys.audit("benchmark", 1, 2)
    return (time.perf_counter() - began) / EVENTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--sockets", type=int, default=500)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--looks", type=int, default=200)
    options = parser.parse_args()
    silent = event_seconds()
    with TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        guard = door.open_to(PolicySpec(), record=Record(Path(folder) / "record.jsonl"))
        heard = event_seconds()
        connect(options.sockets, stack)
        done = threading.Event()
        for _ in range(options.threads):
            threading.Thread(target=done.wait, daemon=True).start()
        child = subprocess.Popen(["sleep", "600"])
        try:
            look = look_seconds(options.looks, guard, Sampler(guard, lambda *_: None))
            reads = look_seconds(options.looks // 4, guard)
        finally:
            child.kill()
            child.wait()
            done.set()
    figures = {
        "sockets": options.sockets,
        "threads": options.threads,
        "look_ms": look * 1e3,
        "look_that_reads_ms": reads * 1e3,
        "share_of_a_core": min(0.9 * look + 0.1 * reads, 1 / 200),  # a look a second, one in ten reads
        "event_ns": (heard - silent) * 1e9,
    }
    print(
        json.dumps(figures) if options.json else "\n".join(f"{key:<20} {value:.4g}" for key, value in figures.items())
    )


if __name__ == "__main__":
    main()
