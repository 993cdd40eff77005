"""-m: every combination of a sweep, in order, and a table at the end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from aiftrain.cli import output
from aiftrain.cli.composing import swept
from aiftrain.cli.planning import amount
from aiftrain.cli.starting import Ready, agree, make_ready, start
from aiftrain.errors import EXIT_OK, EXIT_RESUME, AiftrainError, UserError
from aiftrain.run.folder import RunFolder

if TYPE_CHECKING:
    from rich.console import Console


def launch_all(runs: list[list[str]], console: Console, *, as_json: bool, yes: bool = False) -> int:
    """Make every combination ready, ask once for all that they cost, and start one after the other.

    A refused or failed one does not stop the others; a request to stop does.
    """
    results: list[dict[str, Any]] = [{"overrides": own} for own in swept(runs)]
    ready = _make_all_ready(runs, results, console)
    agree(list(ready.values()), console, yes=yes)
    for place, run in ready.items():
        if not run.is_job:
            _announce(place, results, console)
        results[place] |= _start(run, console)
        if results[place]["exit_code"] == EXIT_RESUME:
            break
    done = [result for result in results if "state" in result]
    if as_json:
        output.print_json({"runs": done})
    else:
        console.print()
        _show_launched(done, console)
    return _worst(done)


def plan_all(runs: list[list[str]], *, as_json: bool) -> int:
    """Plan each combination and set them side by side; what stands against one of them is told below the table."""
    results = [{"overrides": own, **_plan(overrides)} for overrides, own in zip(runs, swept(runs), strict=True)]
    if as_json:
        output.print_json({"runs": results})
        return _worst(results)
    header = ("run", "ranks", "states a rank", "of", "steps", "FLOPs")
    output.show(output.table(header, map(_planned_row, results), numbers=(1, 2, 3, 4, 5)), output.console())
    for result in results:
        if "error" in result:
            print(f"\n{' '.join(result['overrides'])}: {result['error']}", file=sys.stderr)
    return _worst(results)


def _make_all_ready(runs: list[list[str]], results: list[dict[str, Any]], console: Console) -> dict[int, Ready]:
    """Place -> run, of those that nothing stands against; of the others `results` tells it."""
    ready: dict[int, Ready] = {}
    for place, overrides in enumerate(runs):
        _announce(place, results, console)
        try:
            run = make_ready(overrides, console)
            _refuse_shared_folder(run, ready)
        except AiftrainError as error:
            results[place] |= _told(error)
        else:
            ready[place] = run
    return ready


def _refuse_shared_folder(run: Ready, others: dict[int, Ready]) -> None:
    """Jobs of one folder would be one run."""
    for place, other in others.items():
        if run.is_job and other.is_job and run.folder.path == other.folder.path:
            raise UserError(
                f"{run.folder.path} is the folder of run {place + 1} too: what they differ in is nothing that makes "
                "another run, or run_dir is the same; give each one of its own, such as run_dir='runs/${nodes}-nodes'"
            )


def _announce(place: int, results: list[dict[str, Any]], console: Console) -> None:
    own = " ".join(results[place]["overrides"])
    console.print(f"\nrun {place + 1} of {len(results)}: {own}", style="bold", markup=False, soft_wrap=True)


def _start(run: Ready, console: Console) -> dict[str, Any]:
    try:
        result = start(run, console)
    except AiftrainError as error:
        return _told(error)
    from aiftrain.launch.consent import cost_of_job

    cost = cost_of_job(run.spec, run.plan) if run.is_job else None
    return result | {
        "loss": _last_loss(run.folder),
        "nodes": run.spec.nodes,
        "node_hours": cost.node_hours if cost else None,
    }


def _told(error: AiftrainError) -> dict[str, Any]:
    print(f"aiftrain: {error}", file=sys.stderr)
    state = "refused" if isinstance(error, UserError) else "failed"
    return {"exit_code": error.exit_code, "state": state, "error": str(error)}


def _plan(overrides: list[str]) -> dict[str, Any]:
    from aiftrain.cli.plan import as_document, plan_of

    try:
        return as_document(*plan_of(overrides)) | {"exit_code": EXIT_OK}
    except AiftrainError as error:
        return {"exit_code": error.exit_code, "error": str(error)}


def _last_loss(folder: RunFolder) -> float | None:
    from aiftrain.report.metrics import read_metrics

    records = read_metrics(folder).train
    return records[-1].loss if records else None


def _show_launched(results: list[dict[str, Any]], console: Console) -> None:
    """A table of what became of each, without columns that say nothing."""
    columns = {
        "run": [" ".join(result["overrides"]) for result in results],
        "state": [result["state"] for result in results],
        "job": [result.get("job", "") for result in results],
        "nodes": [f"{result['nodes']:,}" if "job" in result else "" for result in results],
        "node-hours": [amount(hours) if (hours := result.get("node_hours")) else "" for result in results],
        "loss": [f"{loss:.4f}" if (loss := result.get("loss")) is not None else "" for result in results],
        "folder": [result.get("run_dir", "") for result in results],
    }
    told = {name: cells for name, cells in columns.items() if any(cells) or name == "run"}
    numbers = [place for place, name in enumerate(told) if name in ("nodes", "node-hours", "loss")]
    output.show(output.table(list(told), zip(*told.values(), strict=True), numbers=numbers), console)


def _planned_row(result: dict[str, Any]) -> tuple[str, ...]:
    own = " ".join(result["overrides"])
    if "error" in result:
        return own, "", "refused", "", "", ""
    estimate = result["estimate"]
    have = estimate["memory_per_rank"]
    sizes = (output.size(sum(estimate["states"].values())), output.size(have) if have else "unknown")
    return (
        own,
        f"{result['execution']['layout']['world_size']:,}",
        *sizes,
        f"{estimate['steps']:,}",
        f"{estimate['flops']:.2e}",
    )


def _worst(results: list[dict[str, Any]]) -> int:
    """The first exit code that is not 0."""
    return next((int(result["exit_code"]) for result in results if result["exit_code"]), EXIT_OK)
