"""Teams of processes that train a few steps when told to, in turn, so that whatever else a machine does meets all.

A team's worker prints one JSON document when it is ready and then, for each number of steps on its standard input,
one with the `seconds` that they took and the `cpu_seconds` of the process.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CORES = len(os.sched_getaffinity(0))


@dataclass
class Team:
    """The processes of one contestant: its ranks. Without `threads` each has all cores."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ranks: int = 1
    threads: int = CORES
    seconds: list[float] = field(default_factory=list)  # of each turn, a step
    cpu_seconds: list[float] = field(default_factory=list)  # of all ranks together

    def __post_init__(self) -> None:
        port = free_port()
        self._workers = [self._start(rank, port) for rank in range(self.ranks)]
        self.facts = self._answers()[0]

    def turn(self, steps: int) -> None:
        """Train `steps` steps, and note what one took. A team is as slow as its slowest rank."""
        self._ask(steps)
        answers = self._answers()
        self.seconds.append(max(answer["seconds"] for answer in answers) / steps)
        self.cpu_seconds.append(sum(answer["cpu_seconds"] for answer in answers) / steps)

    def warm_up(self, steps: int) -> None:
        self._ask(steps)
        self._answers()

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.wait()

    def _start(self, rank: int, port: int) -> subprocess.Popen[str]:
        of_rank = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self.ranks, "LOCAL_WORLD_SIZE": self.ranks}
        of_team = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": self.threads}
        return subprocess.Popen(
            [sys.executable, *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env={**os.environ, **self.environment, **{key: str(value) for key, value in (of_rank | of_team).items()}},
        )

    def _ask(self, steps: int) -> None:
        for worker in self._workers:
            assert worker.stdin is not None
            worker.stdin.write(f"{steps}\n")
            worker.stdin.flush()

    def _answers(self) -> list[dict[str, float]]:
        return [self._answer(worker) for worker in self._workers]

    def _answer(self, worker: subprocess.Popen[str]) -> dict[str, float]:
        assert worker.stdout is not None
        for line in worker.stdout:
            if line.startswith("{"):
                answer: dict[str, float] = json.loads(line)
                return answer
        raise SystemExit(f"{self.name} ended without an answer; to see why: python {' '.join(self.arguments)}")


def take_turns(teams: Sequence[Team], rounds: int, steps: int, warm_up: int = 2) -> dict[str, Any]:
    """Each team a few steps, `rounds` times over. Gives the load of the machine before and after, for the reader."""
    before = os.getloadavg()[0]
    for team in teams:
        team.warm_up(warm_up)
    for _ in range(rounds):
        for team in teams:
            team.turn(steps)
    return {"load_before": before, "load_after": os.getloadavg()[0], "rounds": rounds, "steps": steps}


def medians(teams: Sequence[Team]) -> dict[str, float]:
    return {team.name: statistics.median(team.seconds) for team in teams}


def cpu_medians(teams: Sequence[Team]) -> dict[str, float]:
    return {team.name: statistics.median(team.cpu_seconds) for team in teams}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
