"""Where a run stands: its folder, and the scheduler or the processes that have it, told as one record."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from aiftrain.errors import EXIT_OK, EXIT_RESUME, AiftrainError, MachineError, UserError
from aiftrain.launch.here import where_it_runs
from aiftrain.launch.jobs import SCHEDULERS, UNKNOWN, Job, job_numbers, look_up, newest
from aiftrain.launch.outcome import judge
from aiftrain.report.events import Event, describe
from aiftrain.report.progress import Progress
from aiftrain.run.folder import RunFolder, read_lines
from aiftrain.run.layout import Execution
from aiftrain.run.spec import RunSpec

_ASK_EVERY = 30.0  # seconds between questions to a scheduler, which others need too
_ASK_OFTEN = 1.0  # where a look at the lock tells it, or rank 0 has left
_STATES = {EXIT_OK: "finished", EXIT_RESUME: "stopped early"}

Read = TypeVar("Read")


@dataclass(frozen=True)
class RunStatus:
    """`state` is the job's where one waits or runs, else what became of the newest attempt; `detail` says why.

    `seconds_left` is at the recent pace, and only of a run that trains. `checkpoint` is the step of the newest one.
    """

    run: str
    recipe: str
    launcher: str
    state: str
    detail: str
    job: str | None
    nodes: str
    attempt: int
    step: int
    total_steps: int
    loss: float | None  # nats a token
    tokens_per_s: float | None
    seconds_left: float | None
    checkpoint: int | None
    skipped: int  # steps that the guard did not let be applied
    rollbacks: int
    event: str
    event_time: float | None  # Unix seconds


def statuses(folders: Iterable[RunFolder], tell: Callable[[AiftrainError], None] | None = None) -> list[RunStatus]:
    """Of each run; the schedulers are asked once each.

    UserError or MachineError where a folder cannot be read; with `tell` that is told the error, and the run left out.
    """
    specs = [(folder, _read(folder.read_spec, tell)) for folder in folders]
    runs = [(folder, spec) for folder, spec in specs if spec]
    jobs = _jobs(runs)
    found = [_read(partial(_status, folder, spec, jobs.get(folder.path)), tell) for folder, spec in runs]
    return [status for status in found if status]


def _read(reads: Callable[[], Read], tell: Callable[[AiftrainError], None] | None) -> Read | None:
    """What `reads` gives; None where it fails, and `tell` is told why."""
    try:
        return reads()
    except PermissionError as error:
        failure: AiftrainError = MachineError(f"cannot read {error.filename}: {error.strerror}")
    except AiftrainError as error:
        failure = error
    if tell is None:
        raise failure
    tell(failure)
    return None


def job_of(folder: RunFolder, spec: RunSpec) -> Job | None:
    """The run's job that waits or runs, or else its last; None where none was submitted."""
    return _jobs([(folder, spec)]).get(folder.path)


class Liveness:
    """Tells as often as one likes whether a run waits in a queue or trains, and asks the scheduler seldom."""

    def __init__(self, folder: RunFolder, spec: RunSpec) -> None:
        self._folder, self._spec = folder, spec
        self._alive = not self._has_left()
        self._ask_next = 0.0

    def __call__(self) -> bool:
        if time.monotonic() >= self._ask_next:
            self._alive = self._ask()
            self._ask_next = time.monotonic() + (_ASK_EVERY if self._is_costly() else _ASK_OFTEN)
        return self._alive

    def _ask(self) -> bool:
        """A scheduler that does not answer for a while changes nothing."""
        job = job_of(self._folder, self._spec)
        if job and job.state == UNKNOWN and self._alive:
            return not self._has_left()
        return bool(job and job.active) or where_it_runs(self._folder) is not None

    def _is_costly(self) -> bool:
        return self._spec.launcher.name in SCHEDULERS and not self._has_left()

    def _has_left(self) -> bool:
        """Whether rank 0 of the newest attempt has said its last word."""
        return _exit_note(self._folder, self._folder.last_attempt()).is_file()


def _jobs(runs: list[tuple[RunFolder, RunSpec]]) -> dict[Path, Job]:
    found: dict[Path, Job] = {}
    for launcher in SCHEDULERS:
        numbers = {folder.path: job_numbers(folder) for folder, spec in runs if spec.launcher.name == launcher}
        jobs = {job.number: job for job in look_up(launcher, [number for each in numbers.values() for number in each])}
        for path, of_run in numbers.items():
            if job := newest([jobs[number] for number in of_run]):
                found[path] = job
    return found


def _status(folder: RunFolder, spec: RunSpec, job: Job | None) -> RunStatus:
    attempt = folder.last_attempt()
    progress = Progress(folder, attempt)
    progress.update()
    events = list(read_lines(folder.events))
    saved = [event["step"] for event in events if event.get("event") == "saved" and "step" in event]
    record = progress.metrics.train[-1] if progress.metrics.train else None
    state, detail = _state(folder, attempt, job)
    return RunStatus(
        run=str(folder.path),
        recipe=spec.recipe,
        launcher=spec.launcher.name,
        state=state,
        detail=detail,
        job=job.number if job else None,
        nodes=job.nodes if job and job.active else "",
        attempt=attempt,
        step=record.step if record else 0,
        total_steps=spec.timeline.total_steps,
        loss=_finite(record.loss) if record else None,
        tokens_per_s=_finite(record.tokens_per_s) if record else None,
        seconds_left=progress.seconds_left() if state == "running" else None,
        checkpoint=saved[-1] if saved else None,
        skipped=progress.skipped,
        rollbacks=progress.rollbacks,
        event=_in_words(events[-1]) if events else "",
        event_time=events[-1].get("time") if events else None,
    )


def _state(folder: RunFolder, attempt: int, job: Job | None) -> tuple[str, str]:
    if job and job.active:
        return job.state, job.detail
    where = where_it_runs(folder)
    if where is not None:
        return "running", where
    if job and job.state == UNKNOWN and not _exit_note(folder, attempt).is_file():
        return "unknown", f"of job {job.number} nothing is known: {job.detail}"
    ended = f"job {job.number} {job.detail or job.state}" if job else ""
    if attempt == 0:
        return "not started", ended
    world_size = read_execution(folder).layout.world_size
    outcome = judge(folder.attempt_logs(attempt), world_size, stop_asked=False, killed_by_memory=False)
    state = _STATES.get(outcome.exit_code, "failed")
    return state, "; ".join(filter(None, [ended, outcome.message.removeprefix(f"{state}; ")]))


def _exit_note(folder: RunFolder, attempt: int) -> Path:
    return folder.attempt_logs(attempt) / "rank-00000.exit.json"


def read_execution(folder: RunFolder) -> Execution:
    """What the ranks know of the plan. MachineError or UserError where plan.json cannot be read."""
    try:
        return Execution.model_validate(json.loads(folder.plan_json.read_text(encoding="utf-8"))["execution"])
    except OSError as error:
        raise MachineError(f"cannot read {folder.plan_json}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder.plan_json} cannot be read as a plan: {error}") from error


def _in_words(event: Event) -> str:
    name, step = event.get("event", "?"), event.get("step")
    return describe(event) or (f"{name} at step {step}" if step is not None else str(name))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
