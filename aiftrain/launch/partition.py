"""The state of the job's partition, asked of Slurm in one quick question."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from aiftrain.errors import Problem
from aiftrain.launch.slurm_words import silence
from aiftrain.plan.limits import chosen_partition
from aiftrain.run.asking import ask
from aiftrain.run.spec import RunSpec

_PATIENCE = 10  # seconds


@dataclass(frozen=True)
class PartitionState:
    """`state` is up; down, where jobs wait until it is up again; drain or inactive, where it takes none."""

    name: str
    state: str
    others: tuple[str, ...]  # that are up

    @property
    def problem(self) -> Problem | None:
        """What Slurm would refuse."""
        if self.state in ("up", "down"):
            return None
        return Problem("launcher.partition", f"{self.name} takes no jobs now: its state is {self.state}", self._advice)

    @property
    def reason_to_ask(self) -> str | None:
        """What Slurm would accept, and the user perhaps not."""
        return f"partition {self.name} is down, and the job waits until it is up; {self._advice}" if self.down else None

    @property
    def down(self) -> bool:
        return self.state == "down"

    @property
    def _advice(self) -> str:
        names = " or ".join(f"launcher.partition={name}" for name in self.others)
        return f"up are: {names}" if names else "no other is up"


def partition_state(spec: RunSpec) -> PartitionState | None:
    """Of the partition that the job goes to. None where Slurm does not tell; MachineError where it does not work."""
    if spec.launcher.name != "slurm" or shutil.which("sinfo") is None:
        return None
    answer = ask(("sinfo", "--noheader", "--summarize", "--format=%P|%a"), patience=_PATIENCE)
    if error := silence(answer.stderr):
        raise error
    rows = [line.strip().split("|") for line in answer.stdout.splitlines()]
    states = {row[0]: row[1] for row in rows if len(row) == 2}
    name = chosen_partition(spec) or next((each for each in states if each.endswith("*")), "")  # Slurm's default one
    plain = {each.removesuffix("*"): "inactive" if state == "inact" else state for each, state in states.items()}
    name = name.removesuffix("*")
    if name not in plain:
        return None
    return PartitionState(name, plain[name], tuple(other for other, state in plain.items() if state == "up"))
