"""`bench`: measures a machine, here or as a job; `bench --show FOLDER` says what was measured."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from aiftrain.cli import output
from aiftrain.cli.composing import add_override_arguments
from aiftrain.errors import EXIT_OK, EXIT_RESUME, UserError
from aiftrain.run.folder import RunFolder

if TYPE_CHECKING:
    from rich.console import Console

    from aiftrain.plan.plan import LaunchPlan
    from aiftrain.run.bench import Cases
    from aiftrain.run.spec import RunSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_override_arguments(parser)
    parser.add_argument("--show", metavar="FOLDER", help="print what was measured there, and draw its page anew")
    parser.add_argument("--yes", action="store_true", help="submit whatever it costs, without asking")


def run(options: argparse.Namespace) -> int:
    if options.cfg:
        raise UserError("bench has no --cfg: `python -m aiftrain --cfg job` shows the run in whose place it goes")
    console = output.console(as_json=options.json)
    if options.show:
        if options.overrides:
            raise UserError("--show FOLDER stands alone: what was measured there cannot be changed")
        return _show(RunFolder(options.show), console, as_json=options.json)
    spec, folder, plan = _make_ready(options.overrides)
    console.print(f"bench folder {folder.path}", soft_wrap=True)
    if spec.launcher.is_queued:
        return _submit(spec, folder, plan, console, options)
    return _measure_here(folder, plan, console, as_json=options.json)


def _make_ready(overrides: list[str]) -> tuple[RunSpec, RunFolder, LaunchPlan]:
    from aiftrain.plan.bench import bench_spec

    spec, cases = bench_spec(overrides, str(Path("runs") / "bench" / f"{datetime.now():%Y-%m-%d-%H%M%S}"))
    folder = RunFolder(spec.run_folder)
    if folder.run_json.exists() and folder.read_spec().purpose != "bench":
        raise UserError(f"{folder.path} holds a training run: give the bench another folder with run_dir=...")
    return spec, folder, write_bench(folder, spec, cases)


def write_bench(folder: RunFolder, spec: RunSpec, cases: Cases) -> LaunchPlan:
    """All that the ranks of a bench read; gives its plan. run.json comes last, as of any run."""
    from aiftrain.cli.run_folder import write_run
    from aiftrain.launch.script import render
    from aiftrain.plan.bench import bench_plan

    plan = bench_plan(spec)
    folder.write_json(folder.data_json, {})  # there is none; a start looks for the file
    folder.write_json(folder.bench_cases, cases.model_dump(mode="json"))
    folder.write(folder.job_sh, render(spec, plan.execution.layout, folder))
    write_run(folder, spec, plan)
    return plan


def _submit(spec: RunSpec, folder: RunFolder, plan: LaunchPlan, console: Console, options: argparse.Namespace) -> int:
    from aiftrain.cli.starting import confirm, submit
    from aiftrain.launch.before import check_before_queue

    partition = check_before_queue(spec, plan, folder)
    confirm([(spec, plan, partition)], console, yes=options.yes)
    result = submit(spec, folder, console)
    console.print(f"then: python -m aiftrain bench --show {folder.path}", soft_wrap=True)
    if options.json:
        output.print_json({"run_dir": str(folder.path)} | result)
    return EXIT_OK


def _measure_here(folder: RunFolder, plan: LaunchPlan, console: Console, *, as_json: bool) -> int:
    from aiftrain.launch.local import run_ranks, tell_failure
    from aiftrain.report.bench import follow

    folder.bench_json.unlink(missing_ok=True)  # of an earlier bench in this folder
    outcome = run_ranks(folder, plan.execution, console, lambda _, running: follow(folder, running, console))
    if outcome.exit_code not in (EXIT_OK, EXIT_RESUME):
        tell_failure(outcome, console)
    if folder.bench_json.exists():
        _show(folder, console, as_json=as_json)
    return outcome.exit_code


def _show(folder: RunFolder, console: Console, *, as_json: bool) -> int:
    from aiftrain.cli.bench_tables import tables
    from aiftrain.report.bench_page import draw
    from aiftrain.run.bench import read_bench

    bench = read_bench(folder)
    page = draw(folder, bench)
    if as_json:
        output.print_json(bench.model_dump(mode="json") | {"page": str(page)})
        return EXIT_OK
    for title, grid in tables(bench):
        output.headline(title, console)
        output.show(grid, console)
        console.print()
    console.print(f"page      {page}", soft_wrap=True)
    console.print(f"plans     python -m aiftrain plan --calibrate {folder.path}", soft_wrap=True)
    return EXIT_OK
