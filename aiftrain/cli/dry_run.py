"""`launch --dry-run`: what would be submitted, word for word, and nothing touched."""

from __future__ import annotations

import shlex
from typing import Any

from aiftrain.cli import output
from aiftrain.errors import EXIT_OK
from aiftrain.run.folder import RunFolder
from aiftrain.run.spec import RunSpec


def show_all(runs: list[list[str]], *, as_json: bool) -> int:
    """Each run in turn. Raises ConfigError where a launch would be refused for what is already known."""
    shown = [_would_submit(overrides) for overrides in runs]
    if as_json:
        output.print_json({"runs": shown})
        return EXIT_OK
    for each in shown:
        print(f"# {each['cost'] or 'no time limit is known, and so no cost'}")
        print(f"cd {shlex.quote(each['run_dir'])} && {shlex.join(each['command'])}")
        print(f"# job.sh:\n{each['script']}")
    return EXIT_OK


def _would_submit(overrides: list[str]) -> dict[str, Any]:
    from aiftrain.cli.run_folder import open_run
    from aiftrain.launch.before import check_before_queue, cost_of_job
    from aiftrain.launch.script import render
    from aiftrain.plan.limits import is_queued
    from aiftrain.plan.plan import make_plan
    from aiftrain.plan.spec import resolve

    spec = resolve(overrides)
    plan = make_plan(spec, to_launch=True)
    folder = open_run(spec)
    if is_queued(spec):
        check_before_queue(spec, plan, folder)
    cost = cost_of_job(spec, plan)
    script = render(spec, plan.execution.layout, folder)
    return {"run_dir": spec.run_folder, "command": _command(spec, folder), "cost": cost and cost[1], "script": script}


def _command(spec: RunSpec, folder: RunFolder) -> list[str]:
    from aiftrain.launch import pbs, slurm
    from aiftrain.launch.step import nodes_to_leave_out

    if spec.launcher.name == "slurm":
        return slurm.submit_command(folder, nodes_to_leave_out(spec))
    return pbs.submit_command(folder) if spec.launcher.name == "pbs" else ["bash", folder.job_sh.name]
