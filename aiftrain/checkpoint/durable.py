"""Writes that survive a crash, and the machine's faults said in words a person can act on."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from aiftrain.errors import DamagedError, MachineError

_ELSEWHERE = "choose another folder (storage.path for checkpoints, --out for an export)"
_ADVICE = {
    errno.ENOSPC: f"the disk is full: free some space there, or {_ELSEWHERE}",
    errno.EDQUOT: f"the quota is used up: free some space there, or {_ELSEWHERE}",
    errno.EROFS: f"this file system is read-only: {_ELSEWHERE}",
    errno.EACCES: f"permission denied: make it accessible to this user, or {_ELSEWHERE}",
    errno.EIO: "the disk or the network file system failed: see the system's log",
}


@contextlib.contextmanager
def machine_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a MachineError that says what failed, on which file, and what to do."""
    try:
        yield
    except OSError as error:
        reason = _ADVICE.get(error.errno or 0, error.strerror or str(error))
        raise MachineError(f"cannot {action} {path}: {reason}") from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Read a file of a checkpoint: one that is not there is damage, any other OSError is the machine's fault."""
    with machine_errors("read", path):
        try:
            yield
        except FileNotFoundError as error:
            raise DamagedError(f"{path} is missing") from error


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: files created, renamed or removed there stay so after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a folder, and say so
            raise
    finally:
        os.close(descriptor)


def replace_text(file: Path, text: str) -> None:
    """Write `file` whole or not at all: a part file, synced, renamed, and the rename synced."""
    part = file.with_name(file.name + ".part")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)
    sync_folder(file.parent)


def remove_tree(folder: Path) -> None:
    """Remove `folder` with all that is in it, durably."""
    shutil.rmtree(folder)
    sync_folder(folder.parent)
