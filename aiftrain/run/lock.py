"""One run folder, one run at a time: a lock that the kernel drops when its holder dies, however it dies.

Rank 0 holds it while it trains, and that decides. A launcher only looks (`check`) so that a second start
is refused before it has started anything. The file's text says who holds it; the text decides nothing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from aiftrain.errors import MachineError, UserError

PATIENCE = 0.5  # seconds; a launcher that looks at the lock holds it for less than a millisecond
HANDOVER = 120.0  # seconds; ranks of the job before may still be dying on a node that the scheduler has given up


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: process, host and since when (Unix seconds)."""

    pid: int
    host: str
    since: float

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host}, since {since}"


class RunLock:
    """An exclusive `flock` on one file. The file stays when the lock is released: removing it would be a race."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: int | None = None

    def acquire(self, patience: float = PATIENCE) -> None:
        """Take the lock, within `patience` seconds, and keep it until `release` or death.

        Raises UserError where another process holds it, MachineError where the file system cannot lock.
        """
        stream = self._open()
        try:
            _lock(stream, self.path, patience)
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
            os.ftruncate(stream, 0)
            os.pwrite(stream, json.dumps(holder).encode() + b"\n", 0)
        except OSError as error:
            os.close(stream)
            raise MachineError(f"cannot lock {self.path}: {error.strerror}") from error
        except UserError:
            os.close(stream)
            raise
        self._stream = stream

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        if self._stream is not None:
            os.close(self._stream)
            self._stream = None

    def check(self) -> None:
        """Raise what `acquire` would raise, and take nothing."""
        stream = self._open()
        try:
            _lock(stream, self.path, 0.0)
        except OSError as error:
            raise MachineError(f"cannot lock {self.path}: {error.strerror}") from error
        finally:
            os.close(stream)

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise MachineError(f"cannot open {self.path}: {error.strerror}") from error


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock now. Only reads, so that all who may read a run may ask.

    Raises MachineError where the file cannot be read or the file system cannot lock.
    """
    try:
        stream = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise MachineError(f"cannot read {path}: {error.strerror}") from error
    try:
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return True
        raise MachineError(f"cannot lock {path}: {error.strerror}") from error
    finally:
        os.close(stream)
    return False


def read_holder(path: Path) -> Holder | None:
    """Who wrote into a lock file last; None where nobody did or the text is cut."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Holder(int(document["pid"]), str(document["host"]), float(document["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _lock(stream: int, path: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        if time.monotonic() >= deadline:
            holder = read_holder(path)
            raise UserError(
                f"{path.parent} is in use by another run: {holder or 'a process that did not say its name'}. "
                "Wait for it or stop it, or give this run another folder with run_dir=..."
            )
        time.sleep(0.02)
