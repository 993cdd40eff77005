"""How long a person waits for an answer: whole-process seconds of `--help`, `plan` and its
searches, against an empty Python.

    python benchmarks/startup.py [--json] [--runs 15]

The commands take turns, so that a change in the machine's speed meets all of them alike. Medians, and the ratio to
`python -c pass` in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "--help": ["-m", "aiftrain", "--help"],
    "plan": ["-m", "aiftrain", "plan", "recipe=eu-llm-7b", "factory=lumi"],
    "plan --search, 1,024 nodes": [
        *("-m", "aiftrain", "plan", "--search", "recipe=eu-llm-7b", "factory=lumi", "nodes=1024"),
        "train.global_batch=8192",
    ],
    "plan --search --deadline, up to 22,400 devices": [
        *("-m", "aiftrain", "plan", "--search", "--deadline", "5", "recipe=eu-llm-7b", "factory=jupiter"),
        "train.global_batch=22400",
    ],
    "plan --compare all": ["-m", "aiftrain", "plan", "--compare", "all", "recipe=eu-llm-7b", "nodes=64"],
}


def seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(runs: int) -> dict[str, dict[str, float]]:
    """Name -> median seconds, and as a multiple of an empty Python's."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for arguments in COMMANDS.values():
        seconds(arguments)  # compiles the .pyc files
    for _ in range(runs):
        for name, arguments in COMMANDS.items():
            taken[name].append(seconds(arguments))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    empty = medians["python -c pass"]
    return {name: {"seconds": median, "times_python": median / empty} for name, median in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.runs)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name, figures in result.items():
        print(f"{name:48}{figures['seconds']:7.3f} s   {figures['times_python']:5.1f} x python -c pass")


if __name__ == "__main__":
    main()
