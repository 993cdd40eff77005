"""Training step: aiftrain against transformers' Llama in a plain DeepSpeed loop, and in the Hugging Face Trainer.

    python benchmarks/step.py [--json] [--size 10m|60m] [--rounds 5] [--steps 3]

Same model shape, batch, precision (fp32), ZeRO stage and threads. Every contestant lives in a process of its own and
waits while the others run; in each round each does a few steps in turn. Seconds a step are whole-step wall clock,
data included; the medians over rounds are compared. Ours masks documents, as it does by default; theirs do not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

CONTESTANTS = ("aiftrain", "aiftrain-compiled", "transformers", "trainer")
WORKER = Path(__file__).with_name("step_contestant.py")


class Contestant:
    """A process that trains a few steps when told to, and says how long they took."""

    def __init__(self, name: str, size: str) -> None:
        self.name = name
        self.seconds: list[float] = []
        environment = os.environ | {"DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), name, size],
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
        return float(self._answer()["seconds"]) / steps

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


def measure(size: str, rounds: int, steps: int) -> dict[str, object]:
    """Interleave the contestants; medians, and each one's time as a multiple of ours."""
    contestants = [Contestant(name, size) for name in CONTESTANTS]
    try:
        for contestant in contestants:
            contestant.run(1)
        for _ in range(rounds):
            for contestant in contestants:
                contestant.seconds.append(contestant.run(steps))
    finally:
        for contestant in contestants:
            contestant.close()
    medians = {contestant.name: statistics.median(contestant.seconds) for contestant in contestants}
    facts = contestants[0].facts
    return {
        "size": size,
        "parameters": facts["parameters"],
        "tokens_per_step": facts["tokens"],
        "threads": facts["threads"],
        "matmul_gflops": facts["matmul_flops"] / 1e9,
        "seconds": medians,
        "matmul_share": {name: facts["flops"] / seconds / facts["matmul_flops"] for name, seconds in medians.items()},
        "times_as_fast": {
            ours: {name: medians[name] / medians[ours] for name in ("transformers", "trainer")}
            for ours in CONTESTANTS[:2]
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", choices=["10m", "60m"], default="10m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.size, options.rounds, options.steps)
    print(json.dumps(result, indent=2) if options.json else table(result))


def table(result: dict[str, object]) -> str:
    """The result for people."""
    seconds, shares = result["seconds"], result["matmul_share"]
    assert isinstance(seconds, dict) and isinstance(shares, dict)
    head = (
        f"{result['parameters']:,} parameters, {result['tokens_per_step']:,} tokens a step, "
        f"{result['threads']} threads, fp32 matmul {result['matmul_gflops']:.0f} GFLOP/s\n"
        f"{'':20}{'s/step':>8}{'of matmul':>11}{'vs aiftrain':>13}{'vs compiled':>13}\n"
    )
    rows = (
        f"{name:20}{seconds[name]:8.3f}{shares[name]:11.2f}{seconds[name] / seconds['aiftrain']:13.2f}"
        f"{seconds[name] / seconds['aiftrain-compiled']:13.2f}"
        for name in CONTESTANTS
    )
    return head + "\n".join(rows)


if __name__ == "__main__":
    main()
