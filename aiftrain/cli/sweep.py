"""-m: every combination of a sweep, in order, and a table at the end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from aiftrain.cli import output
from aiftrain.cli.composing import swept
from aiftrain.errors import EXIT_OK, EXIT_RESUME, AiftrainError
from aiftrain.run.folder import RunFolder

if TYPE_CHECKING:
    from rich.console import Console


def launch_all(runs: list[list[str]], console: Console, *, as_json: bool, yes: bool = False) -> int:
    """Train each combination, one after the other. A failed one does not stop the others; a request to stop does."""
    results: list[dict[str, Any]] = []
    for place, (overrides, own) in enumerate(zip(runs, swept(runs), strict=True), 1):
        console.print(f"\nrun {place} of {len(runs)}: {' '.join(own)}", style="bold", markup=False, soft_wrap=True)
        results.append({"overrides": own, **_launch(overrides, console, yes=yes)})
        if results[-1]["exit_code"] == EXIT_RESUME:
            break
    if as_json:
        output.print_json({"runs": results})
    else:
        console.print()
        output.show(
            output.table(("run", "state", "loss", "folder"), map(_launched_row, results), numbers=(2,)), console
        )
    return _worst(results)


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


def _launch(overrides: list[str], console: Console, *, yes: bool) -> dict[str, Any]:
    from aiftrain.cli.launch import launch

    try:
        result = launch(overrides, console, yes=yes)
    except AiftrainError as error:
        print(f"aiftrain: {error}", file=sys.stderr)
        return {"exit_code": error.exit_code, "state": "failed", "error": str(error)}
    return result | {"loss": _last_loss(RunFolder(result["run_dir"]))}


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


def _launched_row(result: dict[str, Any]) -> tuple[str, str, str, str]:
    loss = result.get("loss")
    return (
        " ".join(result["overrides"]),
        result["state"],
        "" if loss is None else f"{loss:.4f}",
        result.get("run_dir", ""),
    )


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
