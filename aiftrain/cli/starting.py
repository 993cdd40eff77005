"""A run on its way from words to a start: made ready, its cost agreed to, and trained here or handed to a scheduler."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiftrain.errors import EXIT_OK, UserError
from aiftrain.run.folder import RunFolder
from aiftrain.run.lock import RunLock
from aiftrain.run.spec import RunSpec

if TYPE_CHECKING:
    from rich.console import Console

    from aiftrain.data.corpus import PreparedCorpus
    from aiftrain.launch.partition import PartitionState
    from aiftrain.plan.plan import LaunchPlan


@dataclass(frozen=True)
class Ready:
    """A run that nothing known stands against. `corpus` is None where all of it is trained already."""

    overrides: list[str]
    spec: RunSpec
    plan: LaunchPlan
    folder: RunFolder
    corpus: PreparedCorpus | None
    partition: PartitionState | None = None

    @property
    def is_job(self) -> bool:
        """Whether a job of it is to be submitted."""
        from aiftrain.plan.limits import is_queued

        return self.corpus is not None and is_queued(self.spec)


def make_ready(overrides: list[str], console: Console) -> Ready:
    """Compose, plan, prepare the data of a run that starts here, and check all that can be known before a queue."""
    from aiftrain.cli.run_folder import founded, is_finished, open_run
    from aiftrain.plan.limits import is_queued
    from aiftrain.plan.spec import resolve

    spec = resolve(overrides)
    plan = _plan(spec, console)
    folder = open_run(spec)
    spec = founded(spec, folder)
    if is_finished(folder, spec):
        return Ready(overrides, spec, plan, folder, None)
    if folder.lock.exists():
        RunLock(folder.lock).check()
    console.print(f"{'going on with' if folder.last_attempt() else 'run folder'} {folder.path}", soft_wrap=True)
    corpus = _corpus(spec, console, overrides)
    if not is_queued(spec):
        return Ready(overrides, spec, plan, folder, corpus)
    from aiftrain.launch.before import check_before_queue

    return Ready(overrides, spec, plan, folder, corpus, check_before_queue(spec, plan, folder, corpus))


def agree(runs: Sequence[Ready], console: Console, *, yes: bool) -> None:
    """Ask once, for all jobs together, whether they are meant. UserError where they are not, or nobody can be asked."""
    confirm([(run.spec, run.plan, run.partition) for run in runs if run.is_job], console, yes=yes)


def confirm(jobs: Sequence[tuple[RunSpec, LaunchPlan, PartitionState | None]], console: Console, *, yes: bool) -> None:
    """As `agree`, of jobs with what is known of their partitions."""
    from aiftrain.launch.consent import refuse_unconfirmed, wants_a_yes

    waits = dict.fromkeys(partition.reason_to_ask for _, _, partition in jobs if partition)
    reasons = [reason for reason in (wants_a_yes((spec, plan) for spec, plan, _ in jobs), *waits) if reason]
    if not reasons or yes:
        return
    if not (sys.stdin.isatty() and console.is_terminal):
        raise refuse_unconfirmed(reasons)
    if console.input(f"{'; '.join(reasons)}. Submit it? [y/N] ", markup=False).strip().lower() not in ("y", "yes"):
        raise refuse_unconfirmed(reasons)


def start(run: Ready, console: Console) -> dict[str, Any]:
    """Train the run, or submit its job; what came of it, for --json."""
    total = run.spec.timeline.total_steps
    result = {"run_dir": str(run.folder.path), "digest": run.spec.digest, "steps": total}
    if run.corpus is None:
        console.print(f"{run.folder.path} is finished: all {total:,} steps are trained", soft_wrap=True)
        return result | {"exit_code": EXIT_OK, "state": "finished before"}
    _write(run.folder, run.spec, run.plan, run.corpus)
    if run.is_job:
        _make_home(run, console)
        return result | submit(run.spec, run.folder, console)
    return result | _train_here(run, console)


def _plan(spec: RunSpec, console: Console) -> LaunchPlan:
    """The plan; a run that goes on keeps the precision that it began with."""
    from aiftrain.cli.run_folder import begun_with
    from aiftrain.plan.plan import make_plan

    begun = begun_with(RunFolder(spec.run_folder)) if spec.train.precision == "auto" else None
    plan = make_plan(spec, to_launch=True, precision=begun)
    for warning in plan.estimate.warnings:
        console.print(f"note: {warning}", soft_wrap=True)
    return plan


def _corpus(spec: RunSpec, console: Console, overrides: list[str]) -> PreparedCorpus:
    """The prepared corpus. A run that starts here prepares it on the spot; a job expects it: its nodes cost money."""
    from aiftrain.cli.data import prepare_shown
    from aiftrain.data.prepare import prepared
    from aiftrain.plan.limits import is_queued

    if not is_queued(spec):
        return prepare_shown(spec, console)
    corpus = prepared(spec.data, vocab_size=spec.model.vocab_size, seed=spec.seed)
    if corpus is None:
        raise UserError(
            f"the data of this run is not prepared; prepare it first:\n  {_command('data', 'prepare', *overrides)}"
        )
    return corpus


def _write(folder: RunFolder, spec: RunSpec, plan: LaunchPlan, corpus: PreparedCorpus) -> None:
    from aiftrain.cli.run_folder import write_run
    from aiftrain.launch.script import render

    folder.write_json(folder.data_json, corpus.model_dump(mode="json"))
    folder.write(folder.job_sh, render(spec, plan.execution.layout, folder))
    write_run(folder, spec, plan)


def _make_home(run: Ready, console: Console) -> None:
    from aiftrain.launch.home import make_home

    if done := make_home(run.spec, run.plan.execution.layout, run.folder):
        console.print(done, soft_wrap=True)


def submit(spec: RunSpec, folder: RunFolder, console: Console) -> dict[str, Any]:
    """Hand job.sh to the scheduler; what came of it, for --json."""
    from aiftrain.launch import pbs, slurm
    from aiftrain.launch.step import nodes_to_leave_out

    if spec.launcher.name == "pbs":
        job, look = pbs.submit(folder), "qstat"
    else:
        job, look = slurm.submit(folder, nodes_to_leave_out(spec)), "squeue --job"
    console.print(f"submitted as job {job}; {look} {job} says where it stands", soft_wrap=True)
    return {"exit_code": EXIT_OK, "state": "submitted", "job": job}


def _train_here(run: Ready, console: Console) -> dict[str, Any]:
    from aiftrain.launch.local import run_local

    code = run_local(run.folder, run.plan.execution, console, again=_command(*run.overrides))
    return {"exit_code": code, "state": {0: "finished", 75: "stopped early"}.get(code, "failed")}


def _command(*words: str) -> str:
    return shlex.join(["python", "-m", "aiftrain", *words])
