"""A tiny run for a live rig: a launch as a person would make it, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from aiftrain.cli.main import main
from aiftrain.run.folder import RunFolder, read_lines
from aiftrain.run.machine import Partition
from tests.ranks.conftest import TINY
from tests.rigs.shape import Shape
from tests.rigs.slurm import SlurmRig

CONF = Path(__file__).with_name("conf")


def live_shape(nodes: int) -> Shape:
    """What conf/factory/rig.yaml describes, with as many nodes."""
    limits = Partition(max_nodes=nodes, max_time="01:00:00")
    return Shape(name="rig", nodes=nodes, cores=8, memory_mib=8 * 1024, partitions={"cpu": limits})


@dataclass(frozen=True)
class Trainings:
    """Tiny runs on the text in `folder`, started through the command line."""

    folder: Path
    rig: SlurmRig

    def overrides(self, name: str) -> list[str]:
        sources = ["~data.sources.python-docs", "~data.sources.python-source"]
        sources.append(f"+data.sources.de={{kind: text, path: '{self.folder}/de.txt', split: line}}")
        return [*TINY, *sources, f"data.cache_dir='{self.folder}/cache'", f"run_dir='{self.folder}/{name}'"]

    def here(self, name: str, *overrides: str) -> RunFolder:
        """Train on this machine to the end: the undisturbed run."""
        words = [*self.overrides(name), "factory=local", "launcher.ranks_per_node=2", *overrides]
        assert main(words) == 0
        return RunFolder(self.folder / name)

    def submit(self, name: str, *overrides: str) -> tuple[RunFolder, str]:
        """The run's folder and the job's number."""
        site = [f"hydra.searchpath=[{CONF}]", "factory=rig"]
        assert main([*self.overrides(name), *site, *overrides]) == 0
        run = RunFolder(self.folder / name)
        return run, str(list(read_lines(run.jobs))[-1]["job"])

    def finish(self, run: RunFolder, job: str, state: str = "COMPLETED") -> None:
        """Wait for the job's end, and show its output where it ended otherwise."""
        self.rig.wait_for_job(job, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        assert self.rig.job_state(job) == state, output(run)

    def until_step(self, run: RunFolder, step: int) -> None:
        self.until(run, lambda: max(losses(run), default=0) >= step)

    def until(self, run: RunFolder, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, output(run)
            time.sleep(0.05)


def losses(run: RunFolder) -> dict[int, float]:
    """Step -> the last recorded loss."""
    return {record["step"]: record["loss"] for record in read_lines(run.metrics) if "loss" in record}


def output(run: RunFolder) -> str:
    """What the job and its ranks have printed."""
    files = [*sorted(run.path.glob("slurm-*.out")), *sorted(run.logs.rglob("*.log"))]
    return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)


def trainings(folder: Path, rig: SlurmRig, patch: pytest.MonkeyPatch) -> Trainings:
    """Text to train on, and an environment in which this process's commands find the rig."""
    words = ["der", "Hund", "und", "die", "Katze", "sehen", "das", "Haus"]
    lines = [" ".join(words[i % 7 :] + [str(i * 37 % 101)] * (i % 5)) for i in range(1500)]
    (folder / "de.txt").write_text("\n".join(lines), encoding="utf-8")
    for name in ("SLURM_CONF", "PATH"):
        patch.setenv(name, rig.environ[name])
    made = Trainings(folder, rig)
    assert main(["data", "prepare", *made.overrides("none"), "factory=local"]) == 0
    return made
