"""`checkpoints list|verify|export`: what a run has saved, whether it is intact, and a Hugging Face model of it."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from aiftrain.cli import output
from aiftrain.errors import EXIT_FAILED, EXIT_OK, UserError
from aiftrain.run.folder import RunFolder

if TYPE_CHECKING:
    from aiftrain.checkpoint.catalog import Catalog
    from aiftrain.checkpoint.listing import Summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["list", "verify", "export"], help="what to do")
    parser.add_argument("run", metavar="RUN", help="a run folder, such as runs/smoke/0123456789ab")
    parser.add_argument("--step", type=int, help="the checkpoint of this step (verify: all; export: the newest)")
    parser.add_argument("--out", type=Path, help="export: the folder to write (default: RUN/export)")
    parser.add_argument("--ema", action="store_true", help="export: the moving average of the weights instead of them")
    parser.add_argument(
        "--shard-gb", type=float, default=5, help="export: the size of a file, in 10^9 bytes (default: 5)"
    )


def run(options: argparse.Namespace) -> int:
    folder = RunFolder(options.run)
    if options.action == "export":
        return _export(folder, options)
    from aiftrain.checkpoint.catalog import Catalog

    if options.out is not None or options.ema:
        raise UserError(f"{'--ema' if options.ema else '--out'} goes with export")
    catalog = Catalog.of_run(folder, folder.read_spec())
    return _verify(catalog, options) if options.action == "verify" else _list(catalog, options)


def _list(catalog: Catalog, options: argparse.Namespace) -> int:
    from aiftrain.checkpoint.listing import summaries

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


def _verify(catalog: Catalog, options: argparse.Namespace) -> int:
    from aiftrain.checkpoint.listing import verify

    found = verify(catalog, options.step)
    damaged = any(each.faults for each in found)
    if options.json:
        checkpoints = [asdict(each) for each in found]
        output.print_json({"folder": str(catalog.folder), "intact": not damaged, "checkpoints": checkpoints})
        return EXIT_FAILED if damaged else EXIT_OK
    console = output.console()
    for each in found:
        console.print(f"step {each.step:,}: {'damaged' if each.faults else 'intact'} ({output.size(each.size)})")
        for fault in each.faults:
            console.print(f"  {fault}", markup=False, soft_wrap=True)
    return EXIT_FAILED if damaged else EXIT_OK


def _export(folder: RunFolder, options: argparse.Namespace) -> int:
    from aiftrain.checkpoint.export import export

    out = options.out or folder.path / "export"
    written = export(folder, out, options.step, shard_gb=options.shard_gb, averaged=options.ema)
    if options.json:
        output.print_json({"folder": str(written)})
    else:
        output.console().print(f"{written}: load it with AutoModelForCausalLM.from_pretrained", soft_wrap=True)
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
