"""`launch`, and no verb: composes, plans, prepares the data, and starts the run here or hands it to the scheduler."""

from __future__ import annotations

import argparse

from aiftrain.cli import output
from aiftrain.cli.composing import add_override_arguments, combinations, show_config
from aiftrain.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_override_arguments(parser, sweeps=True)
    parser.add_argument("--dry-run", action="store_true", help="show what would be submitted, and touch nothing")
    parser.add_argument("--yes", action="store_true", help="submit whatever it costs, without asking")


def run(options: argparse.Namespace) -> int:
    if show_config(options):
        return EXIT_OK
    console = output.console(as_json=options.json)
    if options.dry_run:
        from aiftrain.cli.dry_run import show_all

        return show_all(combinations(options), as_json=options.json)
    if options.multirun:
        from aiftrain.cli.sweep import launch_all

        return launch_all(combinations(options), console, as_json=options.json, yes=options.yes)
    from aiftrain.cli.starting import agree, make_ready, start

    ready = make_ready(options.overrides, console)
    agree([ready], console, yes=options.yes)
    result = start(ready, console)
    if options.json:
        output.print_json(result)
    code: int = result["exit_code"]
    return code
