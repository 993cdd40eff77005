"""Copies of checkpoints from one place to another: what is there of a copy stays, what arrives is compared.

    home, archive -> archive   as the files are, or sealed on the way where the run asks for it
    sealed archive -> archive  object by object, which takes no key
    archive -> home            verified, as a run fetches one

A copy that is interrupted leaves objects without a commit, and the next one goes on with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from aiftrain.checkpoint.archive import Archive, object_name
from aiftrain.checkpoint.manifest import MANIFEST, FileRecord
from aiftrain.checkpoint.progress import Progress, reading_back, unwatched
from aiftrain.checkpoint.saved import Saved
from aiftrain.checkpoint.sealing.envelope import ENVELOPE
from aiftrain.checkpoint.sealing.stored import SealedCheckpoint
from aiftrain.checkpoint.sealing.writing import seal_checkpoint
from aiftrain.checkpoint.several import several
from aiftrain.checkpoint.stores.base import AlreadyThereError
from aiftrain.checkpoint.verify import check_blocks, checked
from aiftrain.errors import MachineError


@dataclass(frozen=True)
class _Object:
    """Something to be at the place of a checkpoint: `record` is its name there, size and digest; `origin` is told."""

    record: FileRecord
    origin: str
    blocks: Callable[[], Iterator[bytes]]


def copy_files(saved: Saved, archive: Archive, progress: Progress = unwatched) -> None:
    """Make a checkpoint one of `archive`, sealed where that has recipients.

    DamagedError where it is not what was written; AlreadyThereError where the archive has another one of that step;
    MachineError where the archive fails.
    """
    manifest = saved.manifest
    if _is_there(archive, manifest.step, manifest.digest):
        return
    if archive.recipients:
        blocks = partial(_checked, saved, progress)
        archive.store.check_private()
        seal_checkpoint(archive.store, archive.place(manifest.step), manifest, blocks, archive.recipients, progress)
        return
    objects = [
        _Object(
            record.model_copy(update={"name": object_name(record)}),
            f"{saved.address}/{record.name}",
            partial(saved.blocks, record),
        )
        for record in manifest.files
    ]
    _deliver(objects, archive, manifest.step, progress)
    _commit(archive, manifest.step, MANIFEST, manifest.to_json().encode())


def copy_sealed(sealed: SealedCheckpoint, archive: Archive, progress: Progress = unwatched) -> None:
    """The same for a sealed checkpoint, as it is; nobody needs to open it."""
    envelope, store = sealed.envelope, sealed.store
    if _is_there(archive, envelope.step, envelope.manifest):
        return
    objects = [
        _Object(
            FileRecord(name=file.stored, size=file.size, sha256=file.sha256),
            f"{sealed.address}/{file.stored}",
            partial(store.blocks, f"{envelope.context}/{file.stored}"),
        )
        for file in envelope.files
    ]
    _deliver(objects, archive, envelope.step, progress)
    _commit(archive, envelope.step, ENVELOPE, envelope.to_json().encode())


def _is_there(archive: Archive, step: int, digest: str) -> bool:
    """Whether the archive has the checkpoint with that manifest. AlreadyThereError where it has another one."""
    found = archive.read(step)
    if found is not None and found.digest != digest:
        raise AlreadyThereError(
            f"{archive.address} has another checkpoint of step {step}: nothing was overwritten; copy to another place"
        )
    return found is not None


def _deliver(objects: Sequence[_Object], archive: Archive, step: int, progress: Progress) -> None:
    """Have all objects at the place of a step, each of them compared there."""
    there = {entry.name.rpartition("/")[2]: entry.size for entry in archive.objects(step)}

    def is_there(each: _Object) -> bool:
        return there.get(each.record.name) == each.record.size and _is_whole(archive, step, each, progress)

    present = several(is_there, objects)
    owed = [each for each, is_present in zip(objects, present, strict=True) if not is_present]
    size = sum(each.record.size for each in owed)
    archive.store.check_private()
    archive.store.check_room(size, len(owed) + 1)
    progress(sum(each.record.size for each in objects) - size)
    several(partial(_send, archive, step, progress), owed)


def _send(archive: Archive, step: int, progress: Progress, each: _Object) -> None:
    name, store = f"{archive.place(step)}/{each.record.name}", archive.store
    store.write(name, checked(each.blocks(), each.record, each.origin, progress), each.record.size)
    if not store.confirms and not _is_whole(archive, step, each, progress):
        raise MachineError(f"{store.address}/{name} does not keep what it is given")


def _is_whole(archive: Archive, step: int, each: _Object, progress: Progress) -> bool:
    blocks = archive.store.blocks(f"{archive.place(step)}/{each.record.name}")
    return check_blocks(blocks, each.record, reading_back(progress)) is None


def _commit(archive: Archive, step: int, name: str, content: bytes) -> None:
    commit = f"{archive.place(step)}/{name}"
    archive.store.write(commit, [content], len(content), new=True)
    if b"".join(archive.store.blocks(commit)) != content:
        raise MachineError(f"{archive.store.address}/{commit} is not what was sent there")


def _checked(saved: Saved, progress: Progress, record: FileRecord) -> Iterator[bytes]:
    return checked(saved.blocks(record), record, f"{saved.address}/{record.name}", progress)
