"""Training step: aiftrain against transformers' Llama in a plain DeepSpeed loop, and in the Hugging Face Trainer.

    python benchmarks/step.py [--json] [--size 10m|60m] [--vocabulary 32768] [--rounds 5] [--steps 2]

Same model, batch, precision (fp32), ZeRO stage and threads. Every contestant lives in a process of its own and waits
while the others run; in each round each does a few steps in turn. Seconds are whole-step wall clock; the medians over
rounds are compared. Ours has the environment that our launcher gives (the C library keeps freed memory) and masks
documents, as by default. `transformers-tuned` is the plain loop in our environment, to show what that alone does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from aiftrain.launch.environment import KEEP_MEMORY

OURS = ("aiftrain", "aiftrain-compiled")
THEIRS = ("transformers", "trainer")
CONTESTANTS = (*OURS, *THEIRS, "transformers-tuned")
WORKER = Path(__file__).with_name("step_contestant.py")


class Contestant:
    """A process that trains a few steps when told to, and says how long they took."""

    def __init__(self, name: str, size: str, vocabulary: int) -> None:
        self.name = name
        self.seconds: list[float] = []
        environment = os.environ | {"DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
        if name not in THEIRS:
            environment |= KEEP_MEMORY
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), name, size, str(vocabulary)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.facts = self._answer()

    def run(self, steps: int) -> float:
        """Seconds a step, over `steps` steps."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return self._answer()["seconds"] / steps

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, float] = json.loads(line)
                return answer
        raise SystemExit(f"{self.name} ended without an answer; run {WORKER.name} {self.name} by hand to see why")


def measure(size: str, vocabulary: int, rounds: int, steps: int) -> dict[str, Any]:
    """Interleave the contestants: median seconds a step, and how many times as fast as theirs ours are."""
    contestants = [Contestant(name, size, vocabulary) for name in CONTESTANTS]
    try:
        for contestant in contestants:
            contestant.run(2)
        for _ in range(rounds):
            for contestant in contestants:
                contestant.seconds.append(contestant.run(steps))
    finally:
        for contestant in contestants:
            contestant.close()
    medians = {contestant.name: statistics.median(contestant.seconds) for contestant in contestants}
    facts = contestants[0].facts
    return facts | {
        "seconds": medians,
        "matmul_share": {name: facts["flops"] / seconds / facts["matmul_flops"] for name, seconds in medians.items()},
        "times_as_fast": {ours: {name: medians[name] / medians[ours] for name in medians} for ours in OURS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", choices=["10m", "60m"], default="10m")
    parser.add_argument("--vocabulary", type=int, default=32_768)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.size, options.vocabulary, options.rounds, options.steps)
    print(json.dumps(result, indent=2) if options.json else table(result))


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    head = (
        f"{result['parameters']:,} parameters, {result['tokens']:,} tokens a step, {result['threads']} threads, "
        f"fp32 matmul {result['matmul_flops'] / 1e9:.0f} GFLOP/s\n"
        f"{'':20}{'s/step':>8}{'of matmul':>11}{'aiftrain is':>13}{'compiled is':>13}\n"
    )
    eager, compiled = (result["times_as_fast"][name] for name in OURS)
    rows = (
        f"{name:20}{result['seconds'][name]:8.3f}{result['matmul_share'][name]:11.2f}"
        f"{eager[name]:11.2f} x{compiled[name]:11.2f} x"
        for name in CONTESTANTS
    )
    return head + "\n".join(rows)


if __name__ == "__main__":
    main()
