"""After the ranks of a job have ended: what became of them, and whether the run goes on here, in a new job, or not.

launchers/slurm.sh asks on the job's first node, with what Slurm says of the job, and does as it is told.
launchers/pbs.sh asks too; PBS tells a job nothing of this kind, and the script says what it knows:

    python -m aiftrain.launch.aftermath RUN ATTEMPT RESTARTS_AT_ITS_START [STATE TIME_LEFT RESTARTS_NOW]

On stdout: EXIT_CODE here|queue|end|wait [NODE,NODE,...], the nodes that a new job is to keep away from. On stderr: why.
Waiting is for a script that Slurm has lost sight of and replaced: its end would count as that of the job.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from aiftrain.errors import EXIT_FAILED, EXIT_OK, EXIT_RESUME, EXIT_USER, AiftrainError
from aiftrain.launch.header import seconds_to_save
from aiftrain.launch.outcome import Outcome, RankEnd, judge, read_ends
from aiftrain.launch.status import read_execution
from aiftrain.plan.limits import seconds_of, time_limit
from aiftrain.report.bench_page import draw
from aiftrain.run.attempts import led_nowhere, progressed, starts_since_submission
from aiftrain.run.bad_nodes import note_bad_node, read_bad_nodes
from aiftrain.run.bench import read_bench
from aiftrain.run.folder import RunFolder, append_line, read_lines
from aiftrain.run.spec import RunSpec

Next = Literal["here", "queue", "end", "wait"]

_NONE_LEFT = ("0:00", "INVALID")  # squeue has no words for less than nothing
_WORTHWHILE = 60  # seconds of training without which ranks are not started once more before the wall time
_DEFECTS = ("uncorrectable",)  # what CUDA and HIP say of memory and links that are broken


@dataclass(frozen=True)
class JobNow:
    """The job as squeue shows it: its state, the time left of its wall time, and how often it was requeued.

    `began` is how often it had been requeued when the script began.
    """

    began: str
    state: str = "forgotten"
    time_left: str = ""
    restarts: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether this script still speaks for the job: on a node that was lost it may outlive its part."""
        return self.restarts == self.began

    @property
    def seconds_left(self) -> float:
        return float("inf") if self.time_left == "UNLIMITED" else float(seconds_of(self.time_left) or 0)

    @property
    def goes_on(self) -> bool:
        """Neither cancelled nor ended by someone. At the end of its wall time a job is no longer `running`."""
        return self.state == "RUNNING" or self.time_left in _NONE_LEFT


@dataclass(frozen=True)
class Verdict:
    """The attempt's exit code, where the run goes on, why, and what nodes a new job leaves out."""

    exit_code: int
    next: Next
    why: str
    leave_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(filter(None, [str(self.exit_code), self.next, ",".join(self.leave_out)]))


def decide(folder: RunFolder, attempt: int, job: JobNow, bad_nodes: Path | None = None) -> Verdict:
    """What is to be done after `attempt`; nodes that were found bad are added to the file `bad_nodes`.

    Raises UserError or MachineError where the run folder cannot be read.
    """
    spec = folder.read_spec()
    world_size = read_execution(folder).layout.world_size
    outcome = judge(folder.attempt_logs(attempt), world_size, stop_asked=False, killed_by_memory=False)
    found = dict(_bad_nodes(folder, attempt))
    if bad_nodes is not None:
        for node, reason in found.items():
            note_bad_node(bad_nodes, node, f"{reason} ({folder.path})", datetime.now(UTC))
    if not job.is_ours:
        return Verdict(outcome.exit_code, "wait", "Slurm has started this job anew elsewhere, or forgotten it")
    why_end = _why_end(folder, spec, attempt, outcome, job)
    if why_end is not None:
        return Verdict(outcome.exit_code, "end", why_end)
    if found:
        listed = read_bad_nodes(bad_nodes, datetime.now(UTC)) if bad_nodes else found
        return Verdict(outcome.exit_code, "queue", f"without {', '.join(found)}", tuple(listed))
    return Verdict(outcome.exit_code, *_where(folder, spec, attempt, outcome, job))


def _why_end(folder: RunFolder, spec: RunSpec, attempt: int, outcome: Outcome, job: JobNow) -> str | None:
    """Why the run does not go on by itself; None where it does."""
    if outcome.exit_code in (EXIT_OK, EXIT_USER):
        return outcome.message or "finished"
    if spec.launcher.chain == "none":
        return "launcher.chain=none"
    if _was_cancelled(folder):
        return "it was cancelled"
    if not job.goes_on:
        return f"the job is {job.state.lower()}"
    if outcome.exit_code != EXIT_RESUME and not progressed(folder, 1) and not _is_first(folder, attempt):
        return "it has never made a step"
    return led_nowhere(folder, spec.launcher, attempt) or None


def _where(folder: RunFolder, spec: RunSpec, attempt: int, outcome: Outcome, job: JobNow) -> tuple[Next, str]:
    """On these very nodes, which costs no time in the queue, as long as they get anywhere and there is time."""
    if outcome.exit_code == EXIT_RESUME:
        return "queue", "the ranks were told to leave"
    if job.seconds_left < seconds_to_save(time_limit(spec)) + _WORTHWHILE:
        return "queue", "too little of the wall time is left"
    if len(read_ends(folder.attempt_logs(attempt))) < read_execution(folder).layout.world_size:
        return "queue", "ranks did not start on these nodes"
    if attempt > 1 and not progressed(folder, attempt - 1):
        return "queue", "two starts on these nodes led nowhere"
    return "here", "on the same nodes"


def _is_first(folder: RunFolder, attempt: int) -> bool:
    """Whether ranks did start, and none did before: it may be a moment's trouble of the machine."""
    return bool(read_ends(folder.attempt_logs(attempt))) and len(starts_since_submission(folder, attempt)) == 1


def _was_cancelled(folder: RunFolder) -> bool:
    """Whether `cancel` came after the newest submission of a person's."""
    marks = [record for record in read_lines(folder.jobs) if "follows" not in record]
    return bool(marks) and bool(marks[-1].get("cancelled"))


def _bad_nodes(folder: RunFolder, attempt: int) -> Iterator[tuple[str, str]]:
    """Nodes to be left out, with the reason: named by the preflight, with a broken device, or lost twice in a row."""
    ends = read_ends(folder.attempt_logs(attempt))
    names = {end.host: end.node for end in ends}
    for event in read_lines(folder.events):
        if event.get("event") == "bad node" and event.get("attempt") == attempt:
            yield names.get(event["host"], event["host"]), str(event.get("reason", "no reason is given"))
    for end in ends:
        if any(word in end.message.lower() for word in _DEFECTS):
            yield end.node, end.message
    lost = _lost_node(ends)
    if lost is not None and lost == _lost_node(read_ends(folder.attempt_logs(attempt - 1))):
        yield lost, "its ranks vanished in two starts, one after the other"


def _lost_node(ends: list[RankEnd]) -> str | None:
    """The one node of several whose ranks vanished; None where another cause is known, or it is not one node."""
    if any(end.failed and not end.is_consequence for end in ends):
        return None
    lost = {end.node for end in ends if end.exit_code is None}
    return next(iter(lost)) if len(lost) == 1 and lost != {end.node for end in ends} else None


def _draw_bench(folder: RunFolder) -> None:
    """The page of a bench: its ranks write figures only. Where it cannot be drawn, `bench --show` says why later."""
    with suppress(AiftrainError):
        if folder.bench_json.exists():
            draw(folder, read_bench(folder))


def main(arguments: list[str]) -> int:
    """Decide, say it, and note it among the run's events."""
    folder, attempt = RunFolder(arguments[0]), int(arguments[1])
    listed = os.environ.get("AIFTRAIN_BAD_NODES")
    try:
        verdict = decide(folder, attempt, JobNow(*arguments[2:6]), Path(listed) if listed else None)
        event = {"event": "ended", "exit_code": verdict.exit_code, "next": verdict.next, "why": verdict.why}
        append_line(folder.events, {"time": time.time(), "attempt": attempt} | event)
    except AiftrainError as error:
        verdict = Verdict(EXIT_FAILED, "end", str(error))
    print(f"attempt {attempt} ended with {verdict.exit_code}; next: {verdict.next}, {verdict.why}", file=sys.stderr)
    _draw_bench(folder)
    print(verdict)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
