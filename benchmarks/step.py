"""Training step: aiftrain against transformers' Llama in a DeepSpeed loop, the Hugging Face Trainer and Fabric.

    python -m benchmarks.step [--size 10m|60m] [--vocabulary 32768] [--rounds 5] [--steps 2] [--threads 2] [--tuned]
                              [--engine] [--json]

Same model, batch, precision (fp32) and threads. Every contestant lives in a process of its own and waits while the
others run; in each round each does a few steps in turn. Seconds are whole-step wall clock; the medians over rounds are
compared. One of them does nothing but square matrix products, of as many operations as a step: what the machine could
do in that very round. Ours has the environment that our launcher gives (the C library keeps freed memory) and masks
documents, as by default. All of them stay in memory: 24 GiB are too few for seven of the larger size.

`--tuned` adds `deepspeed-tuned`, the DeepSpeed loop in our environment, to show what that alone does. `--engine`
compares with each other: our model in a loop of torch alone, and our engine under ZeRO 0 to 3.

While other programs run, `--threads 1` and the CPU seconds say more than wall clock: waiting for a core counts as
nothing there. With more threads it does not help, since a thread whose turn it is spins while it waits for the others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from aiftrain.launch.environment import KEEP_MEMORY
from benchmarks.turns import CORES, Team, cpu_medians, medians, take_turns

OURS, THEIRS = ("aiftrain-zero1", "aiftrain-zero1-compiled"), ("deepspeed", "trainer", "fabric")
CONTESTANTS = ("matmul", *OURS, *THEIRS)
ENGINES = ("matmul", "bare", *(f"aiftrain-zero{stage}" for stage in range(4)))
QUIET = {"DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}


def team(name: str, size: str, vocabulary: int, ranks: int = 1, threads: int = CORES) -> Team:
    environment: Mapping[str, str] = QUIET if name in THEIRS else QUIET | KEEP_MEMORY
    arguments = ("-m", "benchmarks.step_contestant", name, size, str(vocabulary))
    return Team(name, arguments, environment, ranks, threads)


def measure(
    names: tuple[str, ...], size: str, vocabulary: int, *, rounds: int, steps: int, threads: int
) -> dict[str, Any]:
    """Let the contestants take turns: median seconds a step, and the share of the matrix products' rate."""
    teams = [team(name, size, vocabulary, threads=threads) for name in names]
    try:
        circumstances = take_turns(teams, rounds, steps)
    finally:
        for each in teams:
            each.close()
    seconds = medians(teams)
    facts = teams[0].facts
    return circumstances | {
        "size": size,
        "parameters": facts["parameters"],
        "threads": threads,
        "matmul_flops": facts["flops"] / seconds["matmul"],
        "seconds": seconds,
        "cpu_seconds": cpu_medians(teams),
        "matmul_share": {name: seconds["matmul"] / taken for name, taken in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", choices=["10m", "60m"], default="10m")
    parser.add_argument("--vocabulary", type=int, default=32_768)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=CORES)
    parser.add_argument("--tuned", action="store_true", help="the DeepSpeed loop in our environment, too")
    parser.add_argument("--engine", action="store_true", help="our engine under each ZeRO stage against torch alone")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names, against = (ENGINES, ("bare",)) if options.engine else (CONTESTANTS, OURS)
    names += ("deepspeed-tuned",) if options.tuned else ()
    result = measure(
        names,
        options.size,
        options.vocabulary,
        rounds=options.rounds,
        steps=options.steps,
        threads=options.threads,
    )
    print(json.dumps(result, indent=2) if options.json else table(result, against))


def table(result: dict[str, Any], against: tuple[str, ...]) -> str:
    """The result for people; the last columns say how many times as fast as each row `against` are, by wall clock and
    by CPU seconds."""
    seconds, cpu = result["seconds"], result["cpu_seconds"]
    head = (
        f"{result['parameters']:,} parameters, {result['threads']} threads, fp32 matmul "
        f"{result['matmul_flops'] / 1e9:.0f} GFLOP/s, load {result['load_before']:.1f} to {result['load_after']:.1f}\n"
        f"{'':25}{'s/step':>8}{'CPU s':>8}{'of matmul':>11}  " + "  ".join(f"{name} is" for name in against) + "\n"
    )
    rows = (
        f"{name:25}{seconds[name]:8.3f}{cpu[name]:8.3f}{result['matmul_share'][name]:11.2f}  "
        + "  ".join(
            f"{taken / seconds[ours]:.2f} x ({cpu[name] / cpu[ours]:.2f})".rjust(len(ours) + 3) for ours in against
        )
        for name, taken in seconds.items()
    )
    return head + "\n".join(rows)


if __name__ == "__main__":
    main()
