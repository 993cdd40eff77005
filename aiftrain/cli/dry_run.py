"""`launch --dry-run`: what would be submitted, word for word, what Slurm says of it, and nothing touched."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from aiftrain.cli import output
from aiftrain.errors import EXIT_OK, EXIT_USER, AiftrainError, MachineError
from aiftrain.run.folder import RunFolder
from aiftrain.run.spec import RunSpec

if TYPE_CHECKING:
    from aiftrain.launch.consent import Cost
    from aiftrain.plan.plan import LaunchPlan


def show_all(runs: list[list[str]], *, as_json: bool) -> int:
    """Each run in turn; EXIT_USER where Slurm would refuse one. ConfigError where we know that a launch would be."""
    jobs = [_job(overrides) for overrides in runs]
    shown = [_would_submit(*job) for job in jobs]
    if as_json:
        output.print_json({"runs": shown})
    else:
        for each in shown:
            _print(each)
        _print_total(jobs)
    return EXIT_USER if any(each["refused"] for each in shown) else EXIT_OK


def _job(overrides: list[str]) -> tuple[RunSpec, LaunchPlan, RunFolder]:
    from aiftrain.cli.run_folder import open_run
    from aiftrain.plan.plan import make_plan
    from aiftrain.plan.spec import resolve

    spec = resolve(overrides)
    return spec, make_plan(spec, to_launch=True), open_run(spec)


def _would_submit(spec: RunSpec, plan: LaunchPlan, folder: RunFolder) -> dict[str, Any]:
    from aiftrain.launch.consent import cost_of_job
    from aiftrain.launch.script import render
    from aiftrain.launch.trial import try_job

    notes = list(_not_ready(spec, plan, folder))
    cost = cost_of_job(spec, plan)
    script, command = render(spec, plan.execution.layout, folder), _command(spec, folder)
    trial = try_job(command, script) if spec.launcher.name == "slurm" else None
    return {
        "run_dir": spec.run_folder,
        "command": command,
        "cost": cost and str(cost),
        "notes": notes,
        "slurm": trial and trial.words,
        "refused": bool(trial and trial.refused),
        "script": script,
    }


def _not_ready(spec: RunSpec, plan: LaunchPlan, folder: RunFolder) -> list[str]:
    """What stands against a launch now and may not later. ConfigError for all that is wrong with the run itself."""
    from aiftrain.data.prepare import prepared
    from aiftrain.launch.before import check_before_queue
    from aiftrain.launch.consent import wants_a_yes
    from aiftrain.plan.limits import is_queued

    if not is_queued(spec):
        return []
    notes, corpus = [], None
    try:
        corpus = prepared(spec.data, vocab_size=spec.model.vocab_size, seed=spec.seed)
        notes += [] if corpus else ["the data is not prepared yet: python -m aiftrain data prepare"]
    except AiftrainError as error:
        notes.append(f"the data is not prepared yet: {error}")
    try:
        partition = check_before_queue(spec, plan, folder, corpus)
        notes += [partition.reason_to_ask] if partition and partition.reason_to_ask else []
    except MachineError as error:
        notes.append(str(error))
    return notes + (["it is asked for a yes, or wants --yes"] if wants_a_yes([(spec, plan)]) else [])


def _print(job: dict[str, Any]) -> None:
    print(f"# {job['cost'] or 'no time limit is known, and so no cost'}")
    for words in dict.fromkeys([*job["notes"], *filter(None, [job["slurm"]])]):
        print("\n".join(f"# {line}" for line in words.splitlines()))
    print(f"cd {shlex.quote(job['run_dir'])} && {shlex.join(job['command'])}")
    print(f"# job.sh:\n{job['script']}")


def _print_total(jobs: list[tuple[RunSpec, LaunchPlan, RunFolder]]) -> None:
    from aiftrain.launch.consent import cost_of_job, total_cost

    costs: list[Cost] = [cost for spec, plan, _ in jobs if (cost := cost_of_job(spec, plan))]
    if len(costs) > 1:
        print(f"# {total_cost(costs)}")


def _command(spec: RunSpec, folder: RunFolder) -> list[str]:
    from aiftrain.launch import pbs, slurm
    from aiftrain.launch.step import nodes_to_leave_out

    if spec.launcher.name == "slurm":
        return slurm.submit_command(folder, nodes_to_leave_out(spec))
    return pbs.submit_command(folder) if spec.launcher.name == "pbs" else ["bash", folder.job_sh.name]
