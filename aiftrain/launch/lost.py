"""A job whose number never reached us: Slurm took it, and sbatch's answer was lost on the way.

Before each submission a line in jobs.jsonl says that it is tried. A line that no number follows leads here.
"""

from __future__ import annotations

import os
import time

from aiftrain.errors import MachineError
from aiftrain.launch.slurm_words import silence
from aiftrain.run.asking import ask
from aiftrain.run.folder import RunFolder, append_line, read_lines

_PATIENCE = 30  # seconds


def note_attempt(folder: RunFolder) -> None:
    append_line(folder.jobs, {"asked": time.time()})


def note_job(folder: RunFolder, job: str) -> None:
    append_line(folder.jobs, {"job": job, "submitted": time.time()})


def find_lost(folder: RunFolder) -> str | None:
    """The number of the job that the last submission made without our knowing it; then it is noted.

    None where that was answered, or made none. MachineError where Slurm does not answer.
    """
    tried = [record for record in read_lines(folder.jobs) if "asked" in record or "job" in record]
    if not tried or "job" in tried[-1]:
        return None
    job = _submitted_in(folder)
    if job is not None:
        note_job(folder, job)
    return job


def _submitted_in(folder: RunFolder) -> str | None:
    """Our newest job that was submitted in the run's folder and has not ended."""
    words = ("squeue", "--noheader", f"--user={os.getuid()}", "--sort=-V", "--format=%i|%Z")
    answer = ask(words, patience=_PATIENCE)
    if answer.returncode != 0:
        raise silence(answer.stderr) or MachineError(f"squeue failed: {answer.stderr.strip()}")
    for line in answer.stdout.splitlines():
        number, _, where = line.partition("|")
        if where == str(folder.path.resolve()):
            return number
    return None
