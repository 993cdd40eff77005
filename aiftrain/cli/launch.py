"""`launch`, and no verb: composes, plans, prepares the data, and starts the run here or hands it to the scheduler."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING, Any

from aiftrain.cli import output
from aiftrain.cli.composing import add_override_arguments, combinations, show_config
from aiftrain.errors import EXIT_OK, UserError
from aiftrain.run.folder import RunFolder
from aiftrain.run.lock import RunLock
from aiftrain.run.spec import RunSpec

if TYPE_CHECKING:
    from rich.console import Console

    from aiftrain.data.corpus import PreparedCorpus
    from aiftrain.plan.plan import LaunchPlan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_override_arguments(parser, sweeps=True)
    parser.add_argument("--dry-run", action="store_true", help="show what would be submitted, and touch nothing")
    parser.add_argument("--yes", action="store_true", help="submit whatever it costs, without asking")


def run(options: argparse.Namespace) -> int:
    if show_config(options):
        return EXIT_OK
    console = output.console(as_json=options.json)
    if options.dry_run:
        from aiftrain.cli.dry_run import show_all

        return show_all(combinations(options), as_json=options.json)
    if options.multirun:
        from aiftrain.cli.sweep import launch_all

        return launch_all(combinations(options), console, as_json=options.json, yes=options.yes)
    result = launch(options.overrides, console, yes=options.yes)
    if options.json:
        output.print_json(result)
    code: int = result["exit_code"]
    return code


def launch(overrides: list[str], console: Console, *, yes: bool = False) -> dict[str, Any]:
    """Start the run that `overrides` describe, or go on with it; what came of it, for --json.

    With `yes` nobody is asked whether a job may cost what it may.
    """
    from aiftrain.cli.run_folder import is_finished, open_run
    from aiftrain.plan.limits import is_queued
    from aiftrain.plan.spec import resolve

    spec = resolve(overrides)
    plan = _plan(spec, console)
    folder = open_run(spec)
    result = {"run_dir": str(folder.path), "digest": spec.digest, "steps": spec.train.total_steps}
    if is_finished(folder, spec):
        console.print(f"{folder.path} is finished: all {spec.train.total_steps:,} steps are trained", soft_wrap=True)
        return result | {"exit_code": EXIT_OK, "state": "finished before"}
    console.print(f"{'going on with' if folder.last_attempt() else 'run folder'} {folder.path}", soft_wrap=True)
    if folder.lock.exists():
        RunLock(folder.lock).check()
    corpus = _corpus(spec, console, overrides)
    if is_queued(spec):
        _check_job(spec, plan, folder, console, yes=yes)
    _write(folder, spec, plan, corpus)
    if is_queued(spec):
        return result | _submit(spec, folder, console)
    return result | _train_here(folder, plan, console, overrides)


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


def _check_job(spec: RunSpec, plan: LaunchPlan, folder: RunFolder, console: Console, *, yes: bool) -> None:
    """What can be known before the queue; then the question whether a large job is meant."""
    from aiftrain.launch.before import check_before_queue, refuse_unconfirmed, wants_a_yes

    check_before_queue(spec, plan, folder)
    cost = wants_a_yes(spec, plan)
    if cost is None or yes:
        return
    if not (sys.stdin.isatty() and console.is_terminal):
        raise refuse_unconfirmed(cost)
    if console.input(f"{cost}. Submit it? [y/N] ", markup=False).strip().lower() not in ("y", "yes"):
        raise refuse_unconfirmed(cost)


def _write(folder: RunFolder, spec: RunSpec, plan: LaunchPlan, corpus: PreparedCorpus) -> None:
    from aiftrain.cli.run_folder import write_run
    from aiftrain.launch.script import render

    folder.write_json(folder.data_json, corpus.model_dump(mode="json"))
    folder.write(folder.job_sh, render(spec, plan.execution.layout, folder))
    write_run(folder, spec, plan)


def _submit(spec: RunSpec, folder: RunFolder, console: Console) -> dict[str, Any]:
    from aiftrain.launch import pbs, slurm
    from aiftrain.launch.step import nodes_to_leave_out

    if spec.launcher.name == "pbs":
        job, look = pbs.submit(folder), "qstat"
    else:
        job, look = slurm.submit(folder, nodes_to_leave_out(spec)), "squeue --job"
    console.print(f"submitted as job {job}; {look} {job} says where it stands", soft_wrap=True)
    return {"exit_code": EXIT_OK, "state": "submitted", "job": job}


def _train_here(folder: RunFolder, plan: LaunchPlan, console: Console, overrides: list[str]) -> dict[str, Any]:
    from aiftrain.launch.local import run_local

    code = run_local(folder, plan.execution, console, again=_command(*overrides))
    return {"exit_code": code, "state": {0: "finished", 75: "stopped early"}.get(code, "failed")}


def _command(*words: str) -> str:
    return shlex.join(["python", "-m", "aiftrain", *words])
