"""`watch`: shows a run live, from any machine that sees its folder."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiftrain.cli import output
from aiftrain.errors import EXIT_OK, UserError
from aiftrain.run.folder import RunFolder

if TYPE_CHECKING:
    from rich.console import Console

_LOOK_EVERY = 0.5  # seconds between looks for the first attempt


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder, such as runs/smoke/0123456789ab")


def run(options: argparse.Namespace) -> int:
    from aiftrain.launch.status import Liveness, statuses

    if options.json:
        raise UserError("watch is for people; for programs there is status --json")
    folder, console = RunFolder(options.run), output.console()
    alive = Liveness(folder, folder.read_spec())
    [status] = statuses([folder])
    detail = f": {status.detail}" if status.detail else ""
    console.print(f"{status.state}{detail}", markup=False, soft_wrap=True)
    while alive():
        attempt = folder.last_attempt()
        if attempt:
            _show(folder, attempt, alive, console)
        else:
            time.sleep(_LOOK_EVERY)
    folder.read_spec()  # says so where the folder is gone meanwhile
    return EXIT_OK


def _show(folder: RunFolder, attempt: int, alive: Callable[[], bool], console: Console) -> None:
    """One attempt, until the run ends or starts anew."""
    from aiftrain.report.live import follow

    follow(folder, attempt, lambda: alive() and folder.last_attempt() == attempt, console)
