"""Hands a run folder's job.sh to Slurm."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from aiftrain.errors import MachineError, UserError
from aiftrain.launch.lost import find_lost, note_attempt, note_job
from aiftrain.launch.slurm_words import refusal
from aiftrain.run.asking import ask
from aiftrain.run.folder import RunFolder

_PATIENCE = 60  # seconds that sbatch may take
_LOOK = "the same command finds the job if it came through, and else submits it"


def submit_command(folder: RunFolder, leave_out: Sequence[str] = ()) -> list[str]:
    """What `submit` runs in the run folder, where the job's output goes too."""
    exclude = [f"--exclude={','.join(leave_out)}"] if leave_out else []
    return ["sbatch", "--parsable", *exclude, folder.job_sh.name]


def submit(folder: RunFolder, leave_out: Sequence[str] = ()) -> str:
    """Submit job.sh, note the job's number in jobs.jsonl, and give it. The job keeps away from nodes in `leave_out`.

    Raises UserError where there is nothing to submit, or sbatch is missing or refuses (with its words); MachineError
    where Slurm does not answer.
    """
    if not folder.job_sh.is_file():
        raise UserError(f"{folder.path} has no job.sh: nothing to submit")
    if not folder.data_json.is_file():
        raise UserError("the data is not prepared; do it here, before the queue: python -m aiftrain data prepare ...")
    if shutil.which("sbatch") is None:
        raise UserError("there is no sbatch here: submit from a login node of the site, or train here: factory=local")
    note_attempt(folder)
    try:
        job = _sbatch(submit_command(folder, leave_out), folder)
    except MachineError:
        if (found := _lost(folder)) is None:
            raise
        return found
    note_job(folder, job)
    return job


def _sbatch(command: Sequence[str], folder: RunFolder) -> str:
    """The job's number. Raises as `submit` does."""
    answer = ask(command, patience=_PATIENCE, folder=folder.path, then=_LOOK)
    if answer.returncode != 0:
        raise refusal(answer.stderr.strip() or f"exit code {answer.returncode}")
    return _job_number(answer.stdout)


def _lost(folder: RunFolder) -> str | None:
    """The job, where Slurm took it and its answer was lost; None where it did not, or does not tell."""
    try:
        return find_lost(folder)
    except MachineError:
        return None


def _job_number(answer: str) -> str:
    """From `sbatch --parsable`: NUMBER, or NUMBER;CLUSTER; what a site prints before it is passed over."""
    lines = answer.strip().splitlines()
    number = lines[-1].split(";")[0] if lines else ""
    if not number.isdigit():
        raise MachineError(f"sbatch gave no job number but {answer.strip()!r}; {_LOOK}")
    return number
