"""Files with a secret in them: for their owner alone to read, written once and never over another."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from aiftrain.data.files import reading
from aiftrain.errors import MachineError, UserError
from aiftrain.run.durable import sync_folder


def read_private(file: Path) -> bytes:
    """The content of `file`. UserError where others than its owner can read or change it, or it cannot be read."""
    with reading(file), file.open("rb") as stream:
        mode = os.fstat(stream.fileno()).st_mode
        content = stream.read()
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserError(f"{file} can be read by others than its owner: chmod 600 {file}")
    return content


def write_private(file: Path, content: bytes) -> None:
    """Write a new file, synced. UserError where it is there already, MachineError where it cannot be written."""
    try:
        _write_new(file, content)
    except FileExistsError:
        raise UserError(f"{file} is there already; a key is never overwritten") from None
    except OSError as error:
        raise MachineError(f"cannot write {file}: {error.strerror}") from error


def _write_new(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        sync_folder(file.parent)
    except BaseException:
        file.unlink()  # half a key opens nothing
        raise
