"""`keys new FILE`, `keys show FILE`: the keys of sealed checkpoints. Secret halves stay in the file."""

from __future__ import annotations

import argparse
from pathlib import Path

from aiftrain.cli import output
from aiftrain.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["new", "show"], help="write a new identity; print public keys")
    parser.add_argument("file", metavar="FILE", type=Path, help="the identity's file, for its owner alone to read")


def run(options: argparse.Namespace) -> int:
    from aiftrain.checkpoint.sealing.keys import Identities, new_identity

    new = options.action == "new"
    public = [new_identity(options.file)] if new else Identities.read(options.file).public
    if options.json:
        output.print_json({"file": str(options.file), "public_keys": public})
        return EXIT_OK
    for key in public:
        print(key)
    if new:
        output.console(as_json=True).print(
            f"{options.file} opens what is sealed for this key. Keep a copy where no cluster reaches it: without it, "
            "and without another recipient's, the checkpoints are lost",
            soft_wrap=True,
        )
    return EXIT_OK
