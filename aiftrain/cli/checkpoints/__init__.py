"""`checkpoints ACTION PLACE`: what runs have saved, at home or in an archive, and what can be done with it.

Each action is a module with `run(options) -> exit code`, imported when it is used.
"""

from __future__ import annotations

import argparse
import importlib

from aiftrain.cli.checkpoints.options import add_options, check_options
from aiftrain.errors import UserError
from aiftrain.run import door

ACTIONS = {  # and the module of each
    "list": "listing",
    "verify": "verify",
    "copy": "copy",
    "prune": "prune",
    "keep": "keep",
    "sign": "sign",
    "seal": "seal",
    "reseal": "reseal",
    "export": "export",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=list(ACTIONS), help="what to do")
    where = "a run folder (runs/smoke/0123456789ab), an archive's folder, or s3://SERVICE/BUCKET[/PREFIX]"
    parser.add_argument("place", metavar="PLACE", help=where)
    parser.add_argument("to", metavar="TO", nargs="?", help="copy: the place that it goes to")
    add_options(parser)


def run(options: argparse.Namespace) -> int:
    check_options(options)
    if (options.to is None) == (options.action == "copy"):
        raise UserError(
            "copy takes two places: FROM and TO" if options.to is None else f"{options.to}: one place is enough"
        )
    from aiftrain.cli.checkpoints.places import hosts_of

    module = importlib.import_module(f"{__name__}.{ACTIONS[options.action]}")
    with door.opened(door.NOBODY, hosts_of(options)):
        code: int = module.run(options)
    return code
