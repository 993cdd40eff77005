"""Passphrases come from a terminal or a private file, never from a command line."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from pathlib import Path

from aiftrain.checkpoint.private_files import read_private
from aiftrain.errors import UserError


def passphrase_from(file: Path | None, prompt: str = "passphrase of the key: ") -> Callable[[], bytes]:
    """What gives the passphrase when it is needed: the first line of `file`, or what is typed. UserError if neither."""

    def ask() -> bytes:
        if file is not None:
            return read_private(file).split(b"\n")[0]
        if not sys.stdin.isatty():
            raise UserError("this key has a passphrase, and nobody is here to type it: --passphrase-file FILE")
        return getpass.getpass(prompt).encode()

    return ask
