"""Is a checkpoint on disk what was written: every file's size and SHA-256 against the manifest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from aiftrain.checkpoint.durable import reading
from aiftrain.checkpoint.manifest import FileRecord
from aiftrain.checkpoint.progress import Progress, unwatched
from aiftrain.checkpoint.several import several
from aiftrain.errors import DamagedError, MachineError

BLOCK = 1 << 19  # bytes: some of them stay in the cache of a core


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a checkpoint: the file, and what was expected and found."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def check_files(folder: Path, records: Iterable[FileRecord], progress: Progress = unwatched) -> list[Fault]:
    """Read every file again, several at a time (hashing leaves the interpreter's lock), and compare."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        faults = threads.map(lambda record: _check_content(folder, record, progress), records)
        return [fault for fault in faults if fault is not None]


def check_sizes(folder: Path, records: Iterable[FileRecord]) -> list[Fault]:
    """The quick half of `check_files`: is every file there, with its size."""
    faults = [_check_size(folder, record) for record in records]
    return [fault for fault in faults if fault is not None]


def checked(blocks: Iterable[bytes], record: FileRecord, where: str, progress: Progress = unwatched) -> Iterator[bytes]:
    """The blocks. DamagedError, before the last one, where they are not what `record` says."""
    digest, size, last = hashlib.sha256(), 0, b""
    for block in blocks:
        if last:
            yield last
            progress(len(last))
        digest.update(block)
        size, last = size + len(block), block
    if (size, digest.hexdigest()) != (record.size, record.sha256):
        raise DamagedError(
            f"{where} is damaged: {record.size} bytes of SHA-256 {record.sha256} were written, "
            f"{size} of {digest.hexdigest()} are there"
        )
    yield last
    progress(len(last))


def check_contents(
    records: Iterable[FileRecord], blocks_of: Callable[[FileRecord], Iterable[bytes]], progress: Progress = unwatched
) -> list[Fault]:
    """What is wrong with files, wherever their blocks come from: all of them are read, several at a time."""
    faults = several(lambda record: check_blocks(blocks_of(record), record, progress), records)
    return [fault for fault in faults if fault is not None]


def check_blocks(blocks: Iterable[bytes], record: FileRecord, progress: Progress = unwatched) -> Fault | None:
    """What is wrong with a file that comes in blocks, from wherever: all of them are taken."""
    digest, size = hashlib.sha256(), 0
    try:
        for block in blocks:
            digest.update(block)
            size += len(block)
            progress(len(block))
    except DamagedError as error:
        return Fault(record.name, str(error))
    if size != record.size:
        return Fault(record.name, f"{record.size} bytes were written, {size} are there")
    if digest.hexdigest() != record.sha256:
        return Fault(record.name, f"SHA-256 {record.sha256} was written, {digest.hexdigest()} is there")
    return None


def _check_size(folder: Path, record: FileRecord) -> Fault | None:
    try:
        with reading(folder / record.name):
            size = (folder / record.name).stat().st_size
    except MachineError as error:
        return Fault(record.name, str(error))
    if size != record.size:
        return Fault(record.name, f"{record.size} bytes were written, {size} are there")
    return None


def _check_content(folder: Path, record: FileRecord, progress: Progress) -> Fault | None:
    fault = _check_size(folder, record)
    if fault is not None:
        return fault
    try:
        with reading(folder / record.name), (folder / record.name).open("rb", buffering=0) as stream:
            return check_blocks(iter(lambda: stream.read(BLOCK), b""), record, progress)
    except MachineError as error:
        return Fault(record.name, str(error))
