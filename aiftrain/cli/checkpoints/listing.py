"""`checkpoints list`: what is at a place, of one run or of all that are there."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict

from aiftrain.checkpoint.listing import Summary
from aiftrain.checkpoint.places import Home, Place
from aiftrain.cli import output
from aiftrain.cli.checkpoints.places import runs_at
from aiftrain.errors import EXIT_OK, UserError


def run(options: argparse.Namespace) -> int:
    runs = runs_at(options)
    found = [(run, _wanted(run, options.step)) for run in runs]
    if options.step is not None and not any(summaries for _, summaries in found):
        raise UserError(f"{options.place} has no checkpoint of step {options.step}")
    if options.json:
        documents = [_document(*each) for each in found]
        output.print_json(documents[0] if isinstance(runs[0], Home) else {"place": options.place, "runs": documents})
        return EXIT_OK
    for place, summaries in found:
        _show(place, summaries, named=not isinstance(place, Home))
    return EXIT_OK


def _wanted(place: Place, step: int | None) -> list[Summary]:
    return [summary for summary in place.summaries() if step in (None, summary.step)]


def _document(place: Place, summaries: list[Summary]) -> dict[str, object]:
    checkpoints = [asdict(summary) for summary in summaries]
    return {"folder": place.address, "lineage": place.lineage, "checkpoints": checkpoints}


def _show(place: Place, summaries: list[Summary], *, named: bool) -> None:
    console = output.console()
    if not summaries:
        console.print(f"{place.address} has no checkpoint", soft_wrap=True)
        return
    if named:
        console.print(f"run {place.lineage}", style="bold")
    header = ("step", "tokens", "size", "saved", "state")
    output.show(output.table(header, map(_row, summaries), numbers=(0, 1, 2)), console)
    for summary in summaries:
        if summary.status == "damaged":
            console.print(f"step {summary.step:,}: {summary.message}", soft_wrap=True, markup=False)


def _row(summary: Summary) -> tuple[str, str, str, str, str]:
    tokens = "" if summary.tokens is None else output.count(summary.tokens)
    return (
        f"{summary.step:,}",
        tokens,
        output.size(summary.size),
        _when(summary.time),
        summary.status if summary.status == "damaged" else summary.message or summary.status,
    )


def _when(moment: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) if moment else ""
