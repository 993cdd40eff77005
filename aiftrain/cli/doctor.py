"""`doctor`: is this machine, this Python and this allocation fit to run it."""

from __future__ import annotations

import argparse

from aiftrain.cli.composing import add_override_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_override_arguments(parser)
