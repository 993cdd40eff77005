"""Hands a run folder's job.sh to Slurm."""

from __future__ import annotations

import shutil
import subprocess

from aiftrain.errors import MachineError, UserError
from aiftrain.run.folder import RunFolder

_PATIENCE = 60  # seconds that sbatch may take


def submit(folder: RunFolder) -> str:
    """Submit job.sh and give the job's number.

    sbatch is called from the run folder, where its output goes too. Raises UserError where there is
    nothing to submit, sbatch is missing or refuses (with its words), MachineError where it does not answer.
    """
    if not folder.job_sh.is_file():
        raise UserError(f"{folder.path} has no job.sh: nothing to submit")
    if not folder.data_json.is_file():
        raise UserError("the data is not prepared; do it here, before the queue: python -m aiftrain data prepare ...")
    if shutil.which("sbatch") is None:
        raise UserError("there is no sbatch here: submit from a login node of the site, or train here: factory=local")
    return _job_number(_sbatch(folder))


def _sbatch(folder: RunFolder) -> str:
    try:
        answer = subprocess.run(
            ["sbatch", "--parsable", folder.job_sh.name],
            cwd=folder.path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"sbatch gave no answer in {_PATIENCE} s; look with squeue whether the job is in") from error
    except OSError as error:
        raise MachineError(f"sbatch cannot be started: {error.strerror}") from error
    if answer.returncode != 0:
        raise UserError(f"sbatch refused the job: {answer.stderr.strip() or f'exit code {answer.returncode}'}")
    return answer.stdout


def _job_number(answer: str) -> str:
    """From `sbatch --parsable`: NUMBER, or NUMBER;CLUSTER; what a site prints before it is passed over."""
    lines = answer.strip().splitlines()
    number = lines[-1].split(";")[0] if lines else ""
    if not number.isdigit():
        raise MachineError(f"sbatch gave no job number but {answer.strip()!r}; look with squeue whether the job is in")
    return number
