"""`status`: where runs stand, one in full or all in a table."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from aiftrain.cli import output
from aiftrain.errors import EXIT_OK
from aiftrain.run.folder import RunFolder

if TYPE_CHECKING:
    from aiftrain.launch.status import RunStatus

RUNS = "runs"  # where runs without run_dir=... live: runs/RECIPE/DIGEST


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"a run folder; without one: all runs under {RUNS}/")


def run(options: argparse.Namespace) -> int:
    from aiftrain.launch.status import statuses

    if options.runs:
        found = statuses(RunFolder(path) for path in options.runs)
    else:  # among many a run that cannot be read hides no other
        found = statuses(all_runs(), lambda error: print(f"aiftrain: {error}", file=sys.stderr))
    if options.json:
        output.print_json({"runs": [asdict(status) for status in found]})
    elif not found:
        output.console().print(f"there are no runs under {RUNS}/; name a run folder")
    elif len(found) == 1:
        output.show(output.facts(_facts(found[0])), output.console())
    else:
        header = ("run", "state", "job", "step", "loss", "tokens/s", "left")
        output.show(output.table(header, map(_row, found), numbers=(3, 4, 5, 6)), output.console())
    return EXIT_OK


def all_runs() -> Iterator[RunFolder]:
    """The runs under runs/ in this folder, in order of their names."""
    for pattern in ("*/run.json", "*/*/run.json"):
        yield from (RunFolder(file.parent) for file in sorted(Path(RUNS).glob(pattern)))


def _facts(status: RunStatus) -> Iterator[tuple[str, str]]:
    yield "run", f"{status.run} ({status.recipe}, launcher={status.launcher})"
    yield "state", f"{status.state}{': ' if status.detail else ''}{status.detail}"
    if status.job:
        yield "job", f"{status.job}{' on ' if status.nodes else ''}{status.nodes}"
    yield "attempt", str(status.attempt)
    yield "step", f"{status.step:,} of {status.total_steps:,}"
    yield "loss", _figure(status.loss, ".4f")
    yield "tokens/s", _figure(status.tokens_per_s, ",.0f")
    if status.state == "running":
        yield "time left", _left(status)
    yield "checkpoint", "none yet" if status.checkpoint is None else f"step {status.checkpoint:,}"
    if status.skipped or status.rollbacks:
        yield "guard", f"skipped steps: {status.skipped:,}, rollbacks: {status.rollbacks:,}"
    if status.event:
        yield "last event", f"{status.event} ({_when(status.event_time)})"


def _row(status: RunStatus) -> tuple[str, ...]:
    return (
        status.run,
        status.state,
        status.job or "",
        f"{status.step:,}/{status.total_steps:,}",
        "" if status.loss is None else f"{status.loss:.4f}",
        "" if status.tokens_per_s is None else f"{status.tokens_per_s:,.0f}",
        _left(status) if status.seconds_left is not None else "",
    )


def _figure(value: float | None, form: str) -> str:
    return "not known yet" if value is None else format(value, form)


def _left(status: RunStatus) -> str:
    from aiftrain.report.live import duration

    return duration(status.seconds_left)


def _when(moment: float | None) -> str:
    return "" if moment is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
