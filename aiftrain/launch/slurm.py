"""Hands a run folder's job.sh to Slurm."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence

from aiftrain.errors import AiftrainError, MachineError, UserError
from aiftrain.launch.asking import Answer, ask
from aiftrain.run.folder import RunFolder, append_line

_PATIENCE = 60  # seconds that sbatch may take
_MACHINES_FAULT = ("Unable to contact slurm controller", "authentication", "Munge", "Socket timed out")


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
    answer = _sbatch(submit_command(folder, leave_out), folder)
    if answer.returncode != 0:
        raise _refusal(answer.stderr.strip() or f"exit code {answer.returncode}")
    job = _job_number(answer.stdout)
    append_line(folder.jobs, {"job": job, "submitted": time.time()})
    return job


def _sbatch(command: Sequence[str], folder: RunFolder) -> Answer:
    look = "look with squeue whether the job is in"
    return ask(command, patience=_PATIENCE, folder=folder.path, then=look)


def _refusal(words: str) -> AiftrainError:
    """Whose fault it is, as far as Slurm's words tell."""
    if any(fault in words for fault in _MACHINES_FAULT):
        return MachineError(f"Slurm does not answer: {words}")
    return UserError(f"sbatch refused the job: {words}")


def _job_number(answer: str) -> str:
    """From `sbatch --parsable`: NUMBER, or NUMBER;CLUSTER; what a site prints before it is passed over."""
    lines = answer.strip().splitlines()
    number = lines[-1].split(";")[0] if lines else ""
    if not number.isdigit():
        raise MachineError(f"sbatch gave no job number but {answer.strip()!r}; look with squeue whether the job is in")
    return number
