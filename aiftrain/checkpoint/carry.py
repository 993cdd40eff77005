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
from aiftrain.checkpoint.stores.base import AlreadyThereError
from aiftrain.errors import DamagedError, MachineError

_BLOCK = 8 << 20


def carry(checkpoint: Checkpoint, archive: Archive, progress: Progress = unwatched) -> int:
    """Make `checkpoint` one of `archive`; bytes sent. On return all of it was read back there, and it is complete.

    DamagedError where it is damaged at home; AlreadyThereError where the archive has another checkpoint of that step;
    MachineError where the archive fails.
    """
    manifest = checkpoint.manifest
    entry = Archived(archive.store, archive.place(checkpoint.step), manifest)
    there = {each.name: each.size for each in archive.objects(checkpoint.step)}
    found = [record for record in manifest.files if there.get(entry.object(record)) == record.size]
    missing = [record for record in manifest.files if record not in found]
    archive.store.check_room(sum(record.size for record in missing), len(missing) + 1)
    look = reading_back(progress)
    bad = [record for record in found if check_object(entry, record, look)]  # it decayed since it was written
    progress(sum(record.size for record in found if record not in bad))
    for record in (*missing, *bad):
        _send(checkpoint.folder / record.name, record, entry, progress)
    _commit(archive, manifest)
    return sum(record.size for record in (*missing, *bad))


def _send(file: Path, record: FileRecord, entry: Archived, progress: Progress) -> None:
    entry.store.write(entry.object(record), checked_blocks(file, record, progress), record.size)
    fault = check_object(entry, record, reading_back(progress))
    if fault is not None:
        raise MachineError(f"{entry.address} does not keep what it is given: {fault}")


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


def _commit(archive: Archive, manifest: Manifest) -> None:
    try:
        archive.commit(manifest)
    except AlreadyThereError:
        other = archive.read(manifest.step)
        if other is None or other.manifest.digest != manifest.digest:
            raise AlreadyThereError(conflict(archive, manifest)) from None


def conflict(archive: Archive, manifest: Manifest) -> str:
    """What to say where an archive has another checkpoint of a step than home."""
    return (
        f"{archive.address} has another checkpoint of step {manifest.step} than home: two runs with the same beginning "
        "went on side by side. Nothing was overwritten; give one of them an archive of its own (storage.archives)"
    )
