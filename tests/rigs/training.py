"""A tiny run for a live rig: a launch as a person would make it, and what came of it."""

from __future__ import annotations

import os
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
from tests.rigs.slurm import SlurmRig, missing_packages

CONF = Path(__file__).with_name("conf")
MISSING = missing_packages()
LIVE = [  # marks of tests that train on a live Slurm
    pytest.mark.slow,
    pytest.mark.ranks,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
    pytest.mark.skipif(os.getuid() != 0, reason="nodes in namespaces of their own need root"),
]


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

    def submit(self, name: str, *overrides: str, verb: str = "launch") -> tuple[RunFolder, str]:
        """The run's folder and the job's number."""
        site = [f"hydra.searchpath=[{CONF}]", "factory=rig"]
        assert main([verb, *self.overrides(name), *site, *overrides]) == 0
        run = RunFolder(self.folder / name)
        return run, str(list(read_lines(run.jobs))[-1]["job"])

    def finish(self, run: RunFolder, job: str, state: str = "COMPLETED") -> None:
        """Wait for the job's end, and show its output where it ended otherwise."""
        ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        self.until(run, lambda: self.rig.job_state(job) in ends, seconds=120)
        assert self.rig.job_state(job) == state, output(run)

    def set_wall_time(self, job: str, minutes: int) -> None:
        assert self.rig.call("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}").returncode == 0

    def until_step(self, run: RunFolder, step: int, attempt: int = 1) -> None:
        """Until a step is recorded, by this attempt or a later one."""
        self.until(run, lambda: any(r["step"] >= step and r["attempt"] >= attempt for r in read_lines(run.metrics)))

    def until_attempt(self, run: RunFolder, number: int, seconds: float = 90.0) -> None:
        self.until(run, lambda: run.last_attempt() >= number, seconds)

    def until(self, run: RunFolder, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, output(run)
            time.sleep(0.1)


def losses(run: RunFolder) -> dict[int, float]:
    """Step -> the last recorded loss."""
    return {record["step"]: record["loss"] for record in read_lines(run.metrics) if "loss" in record}


def processes_of(run: RunFolder, attempt: int) -> dict[int, int]:
    """Rank -> its process, outside of its node's namespace, of those that run."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            variables = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended meanwhile
        environ = dict(variable.split(b"=", 1) for variable in variables if b"=" in variable)
        is_rank = b"aiftrain.train" in words and os.fsencode(run.path) in words and b"SLURM_PROCID" in environ
        if is_rank and int(environ[b"AIFTRAIN_ATTEMPT"]) == attempt:
            found[int(environ[b"SLURM_PROCID"])] = int(process.name)
    return found


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
