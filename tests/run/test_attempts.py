"""Restarts without progress: which starts count, and what the refusal says."""

from __future__ import annotations

import json

import pytest

from aiftrain.errors import MachineError
from aiftrain.run.attempts import refuse_loop
from aiftrain.run.folder import RunFolder, append_line
from aiftrain.run.spec import LauncherSpec

SLURM = LauncherSpec(name="slurm", max_restarts=3)


def started(folder: RunFolder, attempt: int, *steps: int, time: float = 10.0, message: str = "") -> None:
    """A start at `time` that made `steps`, and failed with `message`, or vanished."""
    logs = folder.attempt_logs(attempt)
    logs.mkdir(parents=True)
    (logs / "rank-00000.start.json").write_text(json.dumps({"time": time}))
    for step in steps:
        append_line(folder.metrics, {"step": step, "attempt": attempt, "time": time})
    for rank in (0, 1):
        if message:
            note = {"rank": rank, "time": time + 2 - rank, "exit_code": 1, "message": f"{message} {rank}"}
            (logs / f"rank-{rank:05d}.exit.json").write_text(json.dumps(note))


def test_three_starts_without_a_new_step_are_enough(run_folder: RunFolder) -> None:
    started(run_folder, 1, 1, 2, 3)
    for attempt in (2, 3, 4):
        refuse_loop(run_folder, SLURM, attempt)
        started(run_folder, attempt, 1, 2, 3, message="the disk is full.")  # done again: that is no progress
    with pytest.raises(MachineError, match=r"the last 3 starts .* of rank 1: the disk is full. 1\. Mend the cause"):
        refuse_loop(run_folder, SLURM, 5)


def test_a_new_step_or_a_new_checkpoint_starts_the_count_anew(run_folder: RunFolder) -> None:
    started(run_folder, 1, 1)
    for attempt in (2, 3, 4):
        started(run_folder, attempt, *([2] if attempt == 3 else []))
    refuse_loop(run_folder, SLURM, 5)
    started(run_folder, 5)
    append_line(run_folder.events, {"event": "saved", "step": 4, "attempt": 5})
    started(run_folder, 6)
    started(run_folder, 7)
    refuse_loop(run_folder, SLURM, 8)
    started(run_folder, 8)
    with pytest.raises(MachineError, match=r"without a new step\. Mend"):
        refuse_loop(run_folder, SLURM, 9)


def test_steps_made_again_after_a_rollback_are_progress_as_long_as_they_are_kept(run_folder: RunFolder) -> None:
    """Three jobs may be too short to come to where the run once was. Whoever resumes further on has come further."""
    started(run_folder, 1, 9)
    for attempt in (2, 3, 4):
        append_line(run_folder.events, {"event": "resume", "step": attempt, "attempt": attempt})
        started(run_folder, attempt, attempt + 1)
        append_line(run_folder.events, {"event": "saved", "step": attempt + 1, "attempt": attempt})
    refuse_loop(run_folder, SLURM, 5)
    for attempt in (5, 6, 7):  # what they save is damaged each time
        append_line(run_folder.events, {"event": "resume", "step": 5, "attempt": attempt})
        started(run_folder, attempt, 6)
        append_line(run_folder.events, {"event": "saved", "step": 6, "attempt": attempt})
    with pytest.raises(MachineError, match="without a new step"):
        refuse_loop(run_folder, SLURM, 8)


def test_a_new_submission_starts_the_count_anew(run_folder: RunFolder) -> None:
    append_line(run_folder.jobs, {"job": "1", "submitted": 5.0})
    for attempt in (1, 2, 3):
        started(run_folder, attempt, time=10.0 + attempt)
    with pytest.raises(MachineError):
        refuse_loop(run_folder, SLURM, 4)
    append_line(run_folder.jobs, {"job": "2", "submitted": 20.0})
    refuse_loop(run_folder, SLURM, 4)


@pytest.mark.parametrize("launcher", [LauncherSpec(name="local"), LauncherSpec(name="slurm", max_restarts=0)])
def test_where_a_person_starts_it_or_wants_it_so_there_is_no_limit(
    launcher: LauncherSpec, run_folder: RunFolder
) -> None:
    for attempt in (1, 2, 3):
        started(run_folder, attempt)
    refuse_loop(run_folder, launcher, 4)
