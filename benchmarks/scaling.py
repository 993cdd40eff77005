"""Weak scaling inside one machine: tokens/s of as many ranks as cores over that many times the tokens/s of one.

    python -m benchmarks.scaling [--json] [--size 10m|60m] [--vocabulary 8192] [--ranks 2] [--rounds 7] [--steps 2]

Every rank has one thread and the same work, so a step of many ranks would take as long as a step of one if ranks cost
each other nothing: neither messages nor the memory and caches that they share. All strategies, and for each one rank
and many, are processes that wait while the others run and take turns; medians over rounds.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchmarks.step import team
from benchmarks.turns import CORES, cpu_medians, medians, take_turns

STRATEGIES = {"ddp": 0, "zero1": 1, "zero2": 2, "zero3": 3}


def measure(size: str, vocabulary: int, ranks: int, rounds: int, steps: int) -> dict[str, Any]:
    """Seconds a step and efficiency of each strategy."""
    names = {strategy: f"aiftrain-zero{stage}" for strategy, stage in STRATEGIES.items()}
    alone = [team(name, size, vocabulary, 1, threads=1) for name in names.values()]
    together = [team(name, size, vocabulary, ranks, threads=1) for name in names.values()]
    in_turn = [each for pair in zip(alone, together, strict=True) for each in pair]
    try:
        circumstances = take_turns(in_turn, rounds, steps)
    finally:
        for each in in_turn:
            each.close()
    one, many = medians(alone), medians(together)
    one_cpu, many_cpu = cpu_medians(alone), cpu_medians(together)
    strategies = {
        strategy: {
            "seconds_of_one": one[name],
            "seconds_of_many": many[name],
            "efficiency": one[name] / many[name],
            "cpu_seconds_a_rank": many_cpu[name] / ranks / one_cpu[name],
        }
        for strategy, name in names.items()
    }
    return circumstances | {"size": size, "vocabulary": vocabulary, "ranks": ranks, "strategies": strategies}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", choices=["10m", "60m"], default="10m")
    parser.add_argument("--vocabulary", type=int, default=8_192)
    parser.add_argument("--ranks", type=int, default=CORES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.size, options.vocabulary, options.ranks, options.rounds, options.steps)
    print(json.dumps(result, indent=2) if options.json else table(result))


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    ranks = result["ranks"]
    head = (
        f"size {result['size']}, one thread a rank, load {result['load_before']:.1f} to {result['load_after']:.1f}\n"
        f"{'':8}{'1 rank, s':>11}{f'{ranks} ranks, s':>12}{'efficiency':>12}{'CPU s a rank, times':>21}\n"
    )
    rows = (
        f"{strategy:8}{row['seconds_of_one']:11.3f}{row['seconds_of_many']:12.3f}{row['efficiency']:12.2f}"
        f"{row['cpu_seconds_a_rank']:21.2f}"
        for strategy, row in result["strategies"].items()
    )
    return head + "\n".join(rows)


if __name__ == "__main__":
    main()
