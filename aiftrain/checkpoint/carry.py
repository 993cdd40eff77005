"""One checkpoint from home to an archive: what the archive has of it already stays, what arrives is read back.

A carrier that is killed leaves objects without a commit, and the next one goes on with them. What is damaged at home
never gets there: the last block of a file leaves only when the digest of all of it is right.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from aiftrain.checkpoint.archive import Archive, Archived, check_object
from aiftrain.checkpoint.catalog import Checkpoint
from aiftrain.checkpoint.durable import reading
from aiftrain.checkpoint.manifest import FileRecord, Manifest
from aiftrain.checkpoint.progress import Progress, reading_back, unwatched
from aiftrain.checkpoint.sealing.writing import seal_checkpoint
from aiftrain.checkpoint.several import several
from aiftrain.checkpoint.stores.base import AlreadyThereError
from aiftrain.errors import DamagedError, MachineError

_BLOCK = 8 << 20


def carry(checkpoint: Checkpoint, archive: Archive, progress: Progress = unwatched) -> int:
    """Make `checkpoint` one of `archive`; bytes sent. On return it is complete there, and was compared.

    DamagedError where it is damaged at home; AlreadyThereError where the archive has another checkpoint of that step;
    MachineError where the archive fails; UserError where strangers may look into it.
    """
    send = _send_sealed if archive.recipients else _send_plain
    try:
        if archive.read(checkpoint.step) is None:
            sent = send(checkpoint, archive, progress)
            archive.store.clear_unfinished(f"{archive.place(checkpoint.step)}/")
            return sent
    except AlreadyThereError:
        pass  # another process has come first
    other = archive.read(checkpoint.step)
    if other is None or other.digest != checkpoint.manifest.digest:
        raise AlreadyThereError(conflict(archive, checkpoint.manifest))
    return 0


def _send_plain(checkpoint: Checkpoint, archive: Archive, progress: Progress) -> int:
    archive.store.check_private()
    manifest = checkpoint.manifest
    entry = Archived(archive.store, archive.place(checkpoint.step), manifest)
    there = {each.name: each.size for each in archive.objects(checkpoint.step)}
    look = reading_back(progress)

    def is_there(record: FileRecord) -> bool:
        """And has not decayed since it was written."""
        return there.get(entry.object(record)) == record.size and check_object(entry, record, look) is None

    present = several(is_there, manifest.files)
    owed = [record for record, is_present in zip(manifest.files, present, strict=True) if not is_present]
    size = sum(record.size for record in owed)
    archive.store.check_room(size, len(owed) + 1)
    progress(manifest.size - size)
    several(lambda record: _send(checkpoint.folder / record.name, record, entry, progress), owed)
    archive.commit(manifest)
    return size


def _send(file: Path, record: FileRecord, entry: Archived, progress: Progress) -> None:
    entry.store.write(entry.object(record), checked_blocks(file, record, progress), record.size)
    fault = None if entry.store.confirms else check_object(entry, record, reading_back(progress))
    if fault is not None:
        raise MachineError(f"{entry.address} does not keep what it is given: {fault}")


def _send_sealed(checkpoint: Checkpoint, archive: Archive, progress: Progress) -> int:
    sent: list[int] = []

    def blocks_of(record: FileRecord) -> Iterator[bytes]:
        sent.append(record.size)
        return checked_blocks(checkpoint.folder / record.name, record, progress)

    manifest, place = checkpoint.manifest, archive.place(checkpoint.step)
    archive.store.check_room(manifest.size, len(manifest.files) + 2)
    seal_checkpoint(archive.store, place, manifest, blocks_of, archive.recipients, progress)
    return sum(sent)


def checked_blocks(file: Path, record: FileRecord, progress: Progress = unwatched) -> Iterator[bytes]:
    """The content of a file at home. DamagedError, before the last block, where it is not what `record` says."""
    digest, left = hashlib.sha256(), record.size
    with reading(file), file.open("rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size != record.size:
            raise DamagedError(f"{file} is damaged: {record.size} bytes were written, {size} are there")
        while left:
            block = stream.read(min(left, _BLOCK))
            if not block:
                raise DamagedError(f"{file} is damaged: it ends {left} bytes too early")
            digest.update(block)
            left -= len(block)
            if not left and digest.hexdigest() != record.sha256:
                raise DamagedError(f"{file} is damaged: its SHA-256 is {digest.hexdigest()}, not {record.sha256}")
            yield block
            progress(len(block))


def conflict(archive: Archive, manifest: Manifest) -> str:
    """What to say where an archive has another checkpoint of a step than home."""
    return (
        f"{archive.address} has another checkpoint of step {manifest.step} than home: two runs with the same beginning "
        "went on side by side. Nothing was overwritten; give one of them an archive of its own (storage.archives)"
    )
