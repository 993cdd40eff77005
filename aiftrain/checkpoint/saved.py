"""One complete checkpoint, alike for all who read it: at home, in an archive, or sealed there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiftrain.checkpoint.archive import Contents, signature_of
from aiftrain.checkpoint.attachments import Attachments
from aiftrain.checkpoint.catalog import Checkpoint
from aiftrain.checkpoint.durable import machine_errors, reading
from aiftrain.checkpoint.manifest import FileRecord, Manifest
from aiftrain.checkpoint.progress import Progress, unwatched
from aiftrain.checkpoint.sealing.opened import OpenedCheckpoint
from aiftrain.checkpoint.shards import CheckpointReader
from aiftrain.checkpoint.signing.bundle import SIGNATURE
from aiftrain.checkpoint.verify import BLOCK, Fault, check_contents
from aiftrain.errors import DamagedError


@dataclass(frozen=True)
class Saved:
    """One complete checkpoint, open to read. `address` is where it is, for messages.

    `blocks` gives the content of a file, not compared with its record. `sealed`: nothing is given that is not what was
    sealed, so that reading all of it beforehand tells no more. `signature`: what lies there as one, unverified.
    """

    address: str
    manifest: Manifest
    reader: Callable[[], CheckpointReader]
    blocks: Callable[[FileRecord], Iterator[bytes]]
    sealed: bool = False
    signature: Callable[[], bytes | None] = lambda: None

    @property
    def attachments(self) -> Attachments:
        return Attachments(self.address, self.manifest, self.blocks)

    def faults(self, progress: Progress = unwatched) -> list[Fault]:
        """What is wrong with it: every file is read."""
        return check_contents(self.manifest.files, self.blocks, progress)

    def check_whole(self, progress: Progress = unwatched) -> None:
        """DamagedError where its files are not what was written: all of them are read."""
        faults = self.faults(progress)
        if faults:
            raise DamagedError(f"{self.address} is damaged: {'; '.join(map(str, faults))}")


def saved_at_home(checkpoint: Checkpoint) -> Saved:
    folder = checkpoint.folder
    blocks, signature = partial(_blocks, folder), partial(_signature, folder)
    return Saved(str(folder), checkpoint.manifest, checkpoint.reader, blocks, signature=signature)


def saved_away(entry: Contents) -> Saved:
    sealed = isinstance(entry, OpenedCheckpoint)
    return Saved(entry.address, entry.manifest, entry.reader, entry.blocks, sealed, partial(signature_of, entry))


def _signature(folder: Path) -> bytes | None:
    with machine_errors("read", folder / SIGNATURE):
        return (folder / SIGNATURE).read_bytes() if (folder / SIGNATURE).exists() else None


def _blocks(folder: Path, record: FileRecord) -> Iterator[bytes]:
    """DamagedError, before the first of them, where they are not as many bytes as were written."""
    file = folder / record.name
    with reading(file), file.open("rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size != record.size:
            raise DamagedError(f"{file} is damaged: {record.size} bytes were written, {size} are there")
        while block := stream.read(BLOCK):
            yield block
