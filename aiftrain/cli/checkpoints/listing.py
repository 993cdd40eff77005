"""`checkpoints list`: what a run has saved."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.listing import Summary, summaries
from aiftrain.cli import output
from aiftrain.errors import EXIT_OK, UserError
from aiftrain.run.folder import RunFolder


def run(folder: RunFolder, options: argparse.Namespace) -> int:
    catalog = Catalog.of_run(folder, folder.read_spec())
    found = [summary for summary in summaries(catalog) if options.step in (None, summary.step)]
    if options.step is not None and not found:
        raise UserError(f"{catalog.folder} has no checkpoint of step {options.step}")
    if options.json:
        output.print_json({"folder": str(catalog.folder), "checkpoints": [asdict(summary) for summary in found]})
        return EXIT_OK
    if not found:
        output.console().print(f"{catalog.folder} has no checkpoint", soft_wrap=True)
        return EXIT_OK
    header = ("step", "tokens", "size", "saved", "state")
    output.show(output.table(header, map(_row, found), numbers=(0, 1, 2)), output.console())
    return EXIT_OK


def _row(summary: Summary) -> tuple[str, str, str, str, str]:
    tokens = output.count(summary.tokens or 0)
    return (
        f"{summary.step:,}",
        tokens,
        output.size(summary.size),
        _when(summary.time),
        summary.message or summary.status,
    )


def _when(moment: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) if moment else ""
