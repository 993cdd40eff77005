"""`checkpoints ACTION RUN`: what a run has saved, whether it is intact, and what can be made of it.

Each action is a module with `run(folder, options) -> exit code`, imported when it is used.
"""

from __future__ import annotations

import argparse
import importlib

from aiftrain.cli.checkpoints.options import add_options, check_options
from aiftrain.run.folder import RunFolder

ACTIONS = {"list": "listing", "verify": "verify", "sign": "sign", "export": "export"}  # and the module of each


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=list(ACTIONS), help="what to do")
    parser.add_argument("run", metavar="RUN", help="a run folder, such as runs/smoke/0123456789ab")
    add_options(parser)


def run(options: argparse.Namespace) -> int:
    check_options(options)
    module = importlib.import_module(f"{__name__}.{ACTIONS[options.action]}")
    code: int = module.run(RunFolder(options.run), options)
    return code
