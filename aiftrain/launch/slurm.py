"""Hands a run folder's job.sh to Slurm."""

from __future__ import annotations

import shutil
import subprocess
import time

from aiftrain.errors import MachineError, UserError
from aiftrain.run.folder import RunFolder, append_line, read_lines

_PATIENCE = 60  # seconds that a command of Slurm may take
_MACHINES_FAULT = ("Unable to contact slurm controller", "authentication", "Munge", "Socket timed out")


def submit_command(folder: RunFolder) -> list[str]:
    """What `submit` runs in the run folder, where the job's output goes too."""
    return ["sbatch", "--parsable", folder.job_sh.name]


def submit(folder: RunFolder) -> str:
    """Submit job.sh, note the job's number in jobs.jsonl, and give it.

    Raises UserError where there is nothing to submit, a job of this run waits or runs already, or sbatch is missing
    or refuses (with its words); MachineError where Slurm does not answer.
    """
    if not folder.job_sh.is_file():
        raise UserError(f"{folder.path} has no job.sh: nothing to submit")
    if not folder.data_json.is_file():
        raise UserError("the data is not prepared; do it here, before the queue: python -m aiftrain data prepare ...")
    if shutil.which("sbatch") is None:
        raise UserError("there is no sbatch here: submit from a login node of the site, or train here: factory=local")
    _refuse_a_second_job(folder)
    answer = _call(folder, *submit_command(folder))
    if answer.returncode != 0:
        _refused(answer.stderr.strip() or f"exit code {answer.returncode}")
    job = _job_number(answer.stdout)
    append_line(folder.jobs, {"job": job, "submitted": time.time()})
    return job


def last_job(folder: RunFolder) -> str | None:
    """The number of the job that was submitted last."""
    jobs = [str(record["job"]) for record in read_lines(folder.jobs) if "job" in record]
    return jobs[-1] if jobs else None


def _refuse_a_second_job(folder: RunFolder) -> None:
    """Two jobs of one run would wait for each other's lock and burn their nodes. squeue forgets jobs that ended."""
    job = last_job(folder)
    if job is None or shutil.which("squeue") is None:
        return
    state = _call(folder, "squeue", "--noheader", "--format=%T", f"--jobs={job}").stdout.strip()
    if state in ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD"):
        raise UserError(f"job {job} of this run is {state.lower()}: wait for it, or end it with scancel {job}")


def _call(folder: RunFolder, *command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=folder.path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise MachineError(
            f"{command[0]} gave no answer in {_PATIENCE} s; look with squeue whether the job is in"
        ) from error
    except OSError as error:
        raise MachineError(f"{command[0]} cannot be started: {error.strerror}") from error


def _refused(words: str) -> None:
    if any(fault in words for fault in _MACHINES_FAULT):
        raise MachineError(f"Slurm does not answer: {words}")
    raise UserError(f"sbatch refused the job: {words}")


def _job_number(answer: str) -> str:
    """From `sbatch --parsable`: NUMBER, or NUMBER;CLUSTER; what a site prints before it is passed over."""
    lines = answer.strip().splitlines()
    number = lines[-1].split(";")[0] if lines else ""
    if not number.isdigit():
        raise MachineError(f"sbatch gave no job number but {answer.strip()!r}; look with squeue whether the job is in")
    return number
