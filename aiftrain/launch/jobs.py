"""The jobs of runs as their scheduler knows them: where each stands, and how it is asked to leave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aiftrain.errors import MachineError, UserError
from aiftrain.launch.slurm_words import plain, why_silent
from aiftrain.run.asking import Answer, ask
from aiftrain.run.folder import RunFolder, read_lines

SCHEDULERS = ("slurm", "pbs")  # launchers whose runs are jobs
UNKNOWN = "unknown"  # the scheduler did not say
FORGOTTEN = "forgotten"  # it answers, and knows the job no more: it has ended
_PATIENCE = 30  # seconds that a command of the scheduler may take
_ENDED = {
    *("boot_fail", "cancelled", "completed", "deadline", "failed", "node_fail", "out_of_memory"),
    *("preempted", "revoked", "timeout", "finished", "moved"),
    FORGOTTEN,
}
# The job_state of `qstat -f`, one letter each: pbs_job_attributes(7B)
_PBS_STATES = {
    "Q": "pending",
    "R": "running",
    "H": "held",
    "W": "waiting",
    "T": "pending",
    "S": "suspended",
    "U": "suspended",
    "E": "exiting",
    "B": "running",
    "F": "finished",
    "X": "finished",
    "M": "moved",
}
# Exit_status where PBS itself ended the job: src/include/job.h of OpenPBS
_PBS_ENDINGS = {
    -27: "ended by PBS: it took more memory than it may",
    -29: "ended by PBS: its wall time was over",
}


@dataclass(frozen=True)
class Job:
    """`state` is the scheduler's word in lower case; `detail` is why it waits, or why nothing is known of it."""

    number: str
    state: str
    detail: str = ""
    nodes: str = ""

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state not in _ENDED and self.state != UNKNOWN


def job_numbers(folder: RunFolder) -> list[str]:
    """The jobs that were submitted for a run, the newest last."""
    return [str(record["job"]) for record in read_lines(folder.jobs) if "job" in record]


def look_up(launcher: str, numbers: Sequence[str]) -> list[Job]:
    """Where jobs stand, in one question to the scheduler of `launcher`. Never fails: what is not known, is unknown."""
    if not numbers:
        return []
    try:
        found, silence = _ask_pbs(numbers) if launcher == "pbs" else _ask_slurm(numbers)
    except (MachineError, UserError) as error:
        found, silence = {}, str(error)
    state = UNKNOWN if silence else FORGOTTEN
    return [found.get(number, Job(number, state, silence)) for number in numbers]


def newest(jobs: Sequence[Job]) -> Job | None:
    """Of a run's jobs the one that waits or runs, or else the last."""
    return next((job for job in jobs if job.active), jobs[-1] if jobs else None)


def ask_to_leave(launcher: str, job: Job) -> str:
    """Have a job's ranks save and leave, or take a job without ranks from the queue. What was done, in words.

    Raises UserError where the scheduler refuses, with its words; MachineError where it does not answer.
    """
    if launcher == "pbs":
        if job.state != "running":
            return end_now(launcher, job)
        _call("qsig", "-s", "SIGURG", job.number)  # SIGTERM would end the job's shell, and with it the job
    elif not _has_step(job):
        return end_now(launcher, job)
    else:
        _call("scontrol", "update", f"JobId={job.number}", "Requeue=0")  # a job that was asked to leave stays away
        _call("scancel", "--signal=TERM", job.number)
    return f"job {job.number}: its ranks save and leave"


def end_now(launcher: str, job: Job) -> str:
    """Take a job from the queue or from its nodes; nothing is saved. Raises as `ask_to_leave` does."""
    _call("qdel" if launcher == "pbs" else "scancel", job.number)
    return f"job {job.number}: cancelled"


def _ask_slurm(numbers: Sequence[str]) -> tuple[dict[str, Job], str]:
    """What squeue knows, and of jobs that it has forgotten what sacct knows; its words where squeue cannot answer."""
    form = "--format=%i|%T|%r|%N"
    answer = _run("squeue", "--noheader", "--states=all", form, f"--jobs={','.join(numbers)}")
    found = _slurm_jobs(answer.stdout.splitlines())
    answered = answer.returncode == 0 or "Invalid job id" in answer.stderr
    silence = "" if answered else why_silent(answer.stderr) or plain(answer.stderr)
    forgotten = [number for number in numbers if number not in found]
    if forgotten and shutil.which("sacct") is not None:
        form = "--format=JobID,State,Reason,NodeList"
        words = ("sacct", "--allocations", "--noheader", "--parsable2", form, f"--jobs={','.join(forgotten)}")
        found |= _slurm_jobs(_run(*words).stdout.splitlines())
    return found, silence


def _slurm_jobs(lines: Iterable[str]) -> dict[str, Job]:
    jobs = {}
    for line in lines:
        number, state, reason, nodes = [*line.split("|"), "", "", ""][:4]
        if not state:
            continue
        word = state.split()[0].lower()  # sacct: CANCELLED by 1000
        why = "" if reason == "None" or word in _ENDED or word == "running" else reason
        jobs[number] = Job(number, word, why, "" if nodes.startswith("None") else nodes)
    return jobs


def _ask_pbs(numbers: Sequence[str]) -> tuple[dict[str, Job], str]:
    """What qstat knows; its words where it cannot answer. Not every server keeps jobs that have ended, for -x."""
    answer = _run("qstat", "-x", "-f", "-F", "json", *numbers)
    if "not configured to maintain job history" in answer.stderr:
        answer = _run("qstat", "-f", "-F", "json", *numbers)
    try:
        described = json.loads(answer.stdout)["Jobs"]
    except (ValueError, KeyError, TypeError):
        silence = answer.stderr.strip()
        return {}, "" if "Unknown Job Id" in silence else silence or "qstat gave no JSON"
    return {number: _pbs_job(number, job) for number, job in described.items()}, ""


def _pbs_job(number: str, job: dict[str, Any]) -> Job:
    state = _PBS_STATES.get(str(job.get("job_state")), UNKNOWN)
    why = "" if state == "running" else str(job.get("comment", ""))
    if state in _ENDED and "Exit_status" in job:
        why = _pbs_ending(int(job["Exit_status"]))
    return Job(number, state, why, str(job.get("exec_host", "")))


def _pbs_ending(status: int) -> str:
    """In words, where PBS or a signal ended the job; what its script left with, the run folder tells better."""
    if status in _PBS_ENDINGS:
        return _PBS_ENDINGS[status]
    if status < 0:
        return f"ended by PBS, exit status {status}"
    return f"ended by signal {status - 256}" if status > 256 else ""  # the signal that ended the job's shell


def _has_step(job: Job) -> bool:
    """Whether srun has started ranks: signals other than SIGKILL go to them alone, and to nobody before."""
    answer = _run("squeue", "--noheader", "--steps", "--format=%i", f"--jobs={job.number}")
    return any(line.strip().rpartition(".")[2].isdigit() for line in answer.stdout.splitlines())


def _call(*command: str) -> None:
    answer = _run(*command)
    if answer.returncode != 0:
        raise UserError(f"{command[0]} refused: {plain(answer.stderr) or f'exit code {answer.returncode}'}")


def _run(*command: str) -> Answer:
    if shutil.which(command[0]) is None:
        raise UserError(f"there is no {command[0]} here: ask on a login node of the site")
    return ask(command, patience=_PATIENCE)
