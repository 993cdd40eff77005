"""`cancel`: asks a run, wherever it waits or trains, to save and leave."""

from __future__ import annotations

import argparse
import os
import signal
import time

from aiftrain.cli import output
from aiftrain.errors import EXIT_OK, AiftrainError, MachineError, UserError
from aiftrain.run.folder import RunFolder, append_line
from aiftrain.run.spec import RunSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder, such as runs/smoke/0123456789ab")
    parser.add_argument("--now", action="store_true", help="end it at once; what is not saved is lost")


def run(options: argparse.Namespace) -> int:
    folder = RunFolder(options.run)
    spec = folder.read_spec()
    done = _cancel_jobs(folder, spec, now=options.now) or _cancel_here(folder, now=options.now)
    if options.json:
        output.print_json({"run": str(folder.path), "cancelled": bool(done), "done": done})
        return EXIT_OK
    console = output.console()
    for words in done or [f"nothing of {folder.path} waits or runs"]:
        console.print(words, markup=False, soft_wrap=True)
    return EXIT_OK


def _cancel_jobs(folder: RunFolder, spec: RunSpec, *, now: bool) -> list[str]:
    """What was done to each job of the run. Those that wait come first: none may start in the place of another."""
    from aiftrain.launch.jobs import SCHEDULERS, UNKNOWN, ask_to_leave, end_now, job_numbers, look_up

    launcher = spec.launcher.name
    if launcher not in SCHEDULERS:
        return []
    jobs = look_up(launcher, job_numbers(folder))
    active = sorted((job for job in jobs if job.active), key=lambda job: job.state == "running")
    if jobs and not active and jobs[-1].state == UNKNOWN:
        raise MachineError(f"where job {jobs[-1].number} of {folder.path} stands is not known: {jobs[-1].detail}")
    if not active:
        return []
    _note(folder, time.time())  # before the ranks leave: no job is to follow then
    try:
        return [end_now(launcher, job) if now else ask_to_leave(launcher, job) for job in active]
    except AiftrainError:
        _note(folder, None)
        raise


def _note(folder: RunFolder, cancelled: float | None) -> None:
    """Who may not write here may not cancel either, and hears so from the scheduler, in its own words."""
    if os.access(folder.jobs, os.W_OK):
        append_line(folder.jobs, {"cancelled": cancelled})


def _cancel_here(folder: RunFolder, *, now: bool) -> list[str]:
    from aiftrain.launch.here import signal_ranks, where_it_runs

    ranks = signal_ranks(folder, signal.SIGKILL if now else signal.SIGTERM)
    if ranks:
        return [f"{output.plural(ranks, 'rank')} on this machine: {'killed' if now else 'they save and leave'}"]
    where = where_it_runs(folder)
    if where is not None:
        raise UserError(f"{folder.path} is trained by {where}: cancel it there")
    return []
