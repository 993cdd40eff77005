"""The machine's faults said in words a person can act on, and removal that survives a crash."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from aiftrain.errors import DamagedError, MachineError
from aiftrain.run.durable import sync_folder

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


def remove_tree(folder: Path) -> None:
    """Remove `folder` with all that is in it, durably."""
    shutil.rmtree(folder)
    sync_folder(folder.parent)
