"""The options of `checkpoints`, and the actions that each goes with."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiftrain.errors import UserError


@dataclass(frozen=True)
class Option:
    """`settings` are those of argparse."""

    flag: str
    actions: tuple[str, ...]
    help: str
    settings: dict[str, Any] = field(default_factory=dict)

    def given(self, options: argparse.Namespace) -> bool:
        default = self.settings.get("default", False if "action" in self.settings else None)
        return bool(getattr(options, self.flag.removeprefix("--").replace("-", "_")) != default)


_PLACES = ("list", "verify", "copy", "prune", "keep", "seal", "reseal", "export")  # what archives can be asked for
_OPENS = ("verify", "copy", "seal", "reseal", "export")
_FLAG = {"action": "store_true"}
_REPEATED = {"action": "append", "default": None, "metavar": "KEY"}
OPTIONS = (
    Option("--public-key", ("verify", "copy", "export"), "it has to be signed with this key (PEM)", {"type": Path}),
    Option("--key", ("sign",), "the private key (PEM), in a file for its owner alone", {"type": Path}),
    Option("--passphrase-file", ("sign",), "what opens the key (default: it is asked for)", {"type": Path}),
    Option("--recipient", ("seal", "reseal"), "a public key (age1...) that is to open it; once for each", _REPEATED),
    Option("--identity", _OPENS, "the file of the key that opens what is sealed", {"type": Path}),
    Option("--new-keys", ("reseal",), "new data keys too: all is sealed anew, and kept copies open nothing", _FLAG),
    Option("--lineage", _PLACES, "of several runs in an archive, the one whose digits begin so"),
    Option("--conf", _PLACES, "a folder of your own with storage/SERVICE.yaml, for s3://SERVICE/...", {"type": Path}),
    Option("--all", ("copy",), "every complete checkpoint, oldest first", _FLAG),
    Option("--weights-only", ("copy",), "without what only a run that goes on needs", _FLAG),
    Option("--keep-last", ("prune",), "how many of the newest stay", {"type": int}),
    Option("--keep-every", ("prune",), "multiples of so many steps stay", {"type": int}),
    Option("--older-than", ("prune",), "only what is older goes: 30d, 12h"),
    Option("--yes", ("prune",), "do it; without, what would go is shown", _FLAG),
    Option("--as", ("keep",), "a name for the milestone", {"metavar": "NAME"}),
    Option("--drop", ("keep",), "no longer a milestone", _FLAG),
    Option("--out", ("export",), "the folder to write (default: RUN/export; needed for an archive)", {"type": Path}),
    Option("--ema", ("export",), "the moving average of the weights instead of them", _FLAG),
    Option("--shard-gb", ("export",), "the size of a file, in 10^9 bytes (default: 5)", {"type": float, "default": 5}),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--step", type=int, help="the checkpoint of this step (list, verify, (re)seal: all; else the newest)"
    )
    for option in OPTIONS:
        parser.add_argument(option.flag, help=f"{', '.join(option.actions)}: {option.help}", **option.settings)


def check_options(options: argparse.Namespace) -> None:
    """UserError where an option was given that says nothing to the action."""
    for option in OPTIONS:
        if options.action not in option.actions and option.given(options):
            raise UserError(f"{option.flag} goes with {' and '.join(option.actions)}")
