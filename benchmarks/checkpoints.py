"""Saving: what training loses to a checkpoint, and how fast it is written, against DeepSpeed and torch.

    python -m benchmarks.checkpoints [--size 10m|60m] [--vocabulary 32768] [--rounds 7] [--steps 3] [--threads 2]
                                     [--folder .] [--json]

One process under ZeRO 1 trains and saves the same state in each way in turn (checkpoints_ways.py). `stall` is what the
loop waits: of ours for the call, the copy and the commit, as the saver reports it; of others for the call. `slower` is
what the steps beside a save take longer, the stall left out, as a share of what they take alone. All are medians.

The writer is then measured alone, three times as many rounds: writing with its digest, and reading again, against a
plain write and fsync of the same bytes to the same folder, in turn and each first in turn. DeepSpeed and torch neither
sync nor read what they wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from aiftrain.checkpoint.background import BackgroundWriter
from aiftrain.checkpoint.writer import BLOCK
from aiftrain.launch.environment import KEEP_MEMORY
from benchmarks.step_task import SHAPES, shape
from benchmarks.turns import CORES, ROOT, free_port

Turn = dict[str, float]
BARS = {"stall_of_deepspeed": 0.05, "slower": 0.10, "write_of_plain": 0.8}  # the first two at most, the last at least


def saves(size: str, vocabulary: int, rounds: int, steps: int, threads: int, folder: Path) -> dict[str, list[Turn]]:
    """Turns of each way, from a process of their own."""
    of_rank = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1"}
    of_rank |= {"MASTER_PORT": free_port(), "OMP_NUM_THREADS": threads}
    environment = os.environ | KEEP_MEMORY | {"DS_ACCELERATOR": "cpu"} | {k: str(v) for k, v in of_rank.items()}
    arguments = ("-m", "benchmarks.checkpoints_ways", size, str(vocabulary), str(rounds), str(steps), str(folder))
    answer = subprocess.run([sys.executable, *arguments], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    answer.check_returncode()
    turns: dict[str, list[Turn]] = json.loads(answer.stdout.splitlines()[-1])
    return turns


def summary(turns: list[Turn]) -> dict[str, float]:
    """Medians; `call_and_next_step`: what both take longer than a step alone."""

    def median(of: Callable[[Turn], float]) -> float:
        return statistics.median(map(of, turns))

    return {
        "step": median(lambda turn: turn["alone"]),
        "stall": median(stall),
        "call_and_next_step": median(lambda turn: turn["call"] + turn["first"] - turn["alone"]),
        "slower": median(
            lambda turn: (turn["call"] + turn["during"] - stall(turn)) / (turn["steps"] * turn["alone"]) - 1
        ),
        "steps_beside": median(lambda turn: turn["steps"]),
    }


def stall(turn: Turn) -> float:
    """Seconds that training waited: as the saver reports them, or the call."""
    return turn.get("stall", turn["call"])


def written(size: int, rounds: int, folder: Path) -> dict[str, float]:
    """Rates in 10^9 bytes a second, medians: of our writer's writing and reading again, and of a plain write."""
    writer = BackgroundWriter(1)
    memory = writer.memory(size)
    assert memory is not None, "too little memory for so many bytes"
    memory[:size] = np.random.default_rng(0).bytes(size)
    found: dict[str, list[float]] = {"write": [], "read": [], "plain": []}
    content = memoryview(memory)[:size]
    for turn in range(rounds):
        taken: dict[str, float] = {}
        ways = [partial(our_write, writer, folder / "ours", size), partial(plain_write, folder / "plain", content)]
        for way in ways[:: 1 if turn % 2 else -1]:
            os.sync()
            taken |= way()
        for name, seconds in taken.items():
            found[name].append(size / seconds / 1e9)
    writer.close()
    rates = {name: statistics.median(values) for name, values in found.items()}
    return rates | {"write_of_plain": rates["write"] / rates["plain"]}


def our_write(writer: BackgroundWriter, file: Path, size: int) -> dict[str, float]:
    """Seconds of writing with fsync, and of reading again."""
    found = writer.write(file, size, 0)
    file.unlink()
    return {"write": found.write_seconds, "read": found.read_seconds}


def plain_write(file: Path, content: memoryview) -> dict[str, float]:
    """Seconds, with fsync."""
    started = time.perf_counter()
    with file.open("wb", buffering=0) as stream:
        for start in range(0, len(content), BLOCK):
            stream.write(content[start : start + BLOCK])
        os.fsync(stream.fileno())
    seconds = time.perf_counter() - started
    file.unlink()
    return {"plain": seconds}


def measure(size: str, vocabulary: int, rounds: int, steps: int, threads: int, folder: Path) -> dict[str, Any]:
    before = os.getloadavg()[0]
    turns = saves(size, vocabulary, rounds, steps, threads, folder)
    octets = int(turns["aiftrain"][0]["bytes"])
    ways = {name: summary(of_way) for name, of_way in turns.items()}
    writer = written(octets, 3 * rounds, folder)  # disks differ more from moment to moment than steps do
    reached = {
        "stall_of_deepspeed": ways["aiftrain"]["stall"] / ways["deepspeed"]["stall"],
        "slower": ways["aiftrain"]["slower"],
        "write_of_plain": writer["write_of_plain"],
    }
    load = {"load_before": before, "load_after": os.getloadavg()[0]}
    parameters = shape(size, vocabulary).parameters
    circumstances = {
        "size": size,
        "parameters": parameters,
        "bytes": octets,
        "rounds": rounds,
        "threads": threads,
    } | load
    return circumstances | {"ways": ways, "writer": writer, "reached": reached, "bars": BARS}


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    head = (
        f"{result['bytes'] / 1e6:,.0f} MB, {result['threads']} threads, {result['rounds']} rounds, load "
        f"{result['load_before']:.1f} to {result['load_after']:.1f}\n"
        f"{'':20}{'s/step':>9}{'stall, s':>10}{'of DeepSpeed':>14}{'call + next':>13}{'slower':>9}{'steps':>7}\n"
    )
    whole = result["ways"]["deepspeed"]["stall"]
    rows = [
        f"{name:20}{way['step']:9.3f}{way['stall']:10.3f}{way['stall'] / whole:14.1%}"
        f"{way['call_and_next_step']:13.3f}{way['slower']:9.1%}{way['steps_beside']:7.0f}"
        for name, way in result["ways"].items()
    ]
    writer, reached = result["writer"], result["reached"]
    rows += [
        f"writer: {writer['write']:.2f} GB/s written with digest and sync, {writer['read']:.2f} read again; plain "
        f"{writer['plain']:.2f}",
        *(f"{name}: {reached[name]:.3f}, bar {bar}" for name, bar in BARS.items()),
    ]
    return head + "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SHAPES), default="10m")
    parser.add_argument("--vocabulary", type=int, default=32_768)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=CORES)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk in question")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        where = Path(folder).absolute()
        result = measure(options.size, options.vocabulary, options.rounds, options.steps, options.threads, where)
    print(json.dumps(result, indent=2) if options.json else table(result))


if __name__ == "__main__":
    main()
