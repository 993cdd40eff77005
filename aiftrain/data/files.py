"""Touching files so that what goes wrong becomes one clear message, and so that no file is ever half-written."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from aiftrain.errors import MachineError, UserError


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """What the user gave cannot be read: UserError with the file and the system's reason."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error


def files_below(entry: Path, skipped: frozenset[str] = frozenset()) -> Iterator[Path]:
    """The file itself, or all files of a folder and of those below it, in no particular order.

    Hidden files and folders and those named in `skipped` are passed over; links to folders are followed once.
    Raises UserError where a folder cannot be listed.
    """
    if not entry.is_dir():
        yield entry
        return
    seen: set[str] = set()
    for folder, inner, names in os.walk(entry, followlinks=True, onerror=_refuse):
        real = os.path.realpath(folder)
        inner[:] = [name for name in inner if not name.startswith(".") and name not in skipped and real not in seen]
        yield from (Path(folder, name) for name in names if not name.startswith(".") and real not in seen)
        seen.add(real)


def _refuse(error: OSError) -> None:
    raise UserError(f"cannot read {error.filename}: {error.strerror}") from error


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """The machine cannot keep what we write (disk full, read-only, no permission): MachineError."""
    try:
        yield
    except OSError as error:
        raise MachineError(f"cannot write {file}: {error.strerror or error}") from error


def part_of(file: Path) -> Path:
    """Where this process writes `file` before it is renamed into place."""
    return file.with_name(f"{file.name}.{os.getpid()}.part")


def commit(part: Path, file: Path) -> None:
    """Make `part` durable, then give it its name in one move."""
    with writing(file):
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        part.replace(file)
        _sync_folder(file.parent)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, so that a record never outlives the files it speaks of."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(file: Path, document: object) -> None:
    """Replace `file` by one JSON document, durably and in one move."""
    part = part_of(file)
    with writing(file):
        part.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    commit(part, file)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The only process at work in `folder`, which is made where it is missing; a second one waits.

    The system gives the lock back when its holder dies, whatever the way. Parts of files that the holder
    or a dead one leaves are removed. MachineError where the file system has no locks.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / "lock").open("ab")
    with stream:
        with writing(folder / "lock"):
            fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            _remove_parts(folder)
            yield
        finally:
            _remove_parts(folder)


def _remove_parts(folder: Path) -> None:
    for part in folder.rglob("*.part"):
        part.unlink(missing_ok=True)


def digest_of(document: object) -> str:
    """32 hexadecimal digits that name a JSON value."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]


def optional_module(name: str, extra: str, purpose: str) -> ModuleType:
    """A package that only some users need; UserError with the install line where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(f'{purpose} needs {package}: python -m pip install "aiftrain[{extra}]"') from error
