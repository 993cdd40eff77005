"""Copies of checkpoints from one place to another: what is there of a copy stays, what arrives is compared.

    home, archive -> archive   as the files are, or sealed on the way where the run asks for it: `copy`
    sealed archive -> archive  object by object, which takes no key: `copy_sealed`
    archive -> home            verified, as a run fetches one (fetch.py)

A copy that is interrupted leaves objects without a commit, and the next one goes on with them. What is damaged where it
comes from never gets there: the last block of a file leaves only when the digest of all of it is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from aiftrain.checkpoint.archive import Archive, object_name
from aiftrain.checkpoint.manifest import FileRecord
from aiftrain.checkpoint.progress import Progress, reading_back, unwatched
from aiftrain.checkpoint.saved import Saved
from aiftrain.checkpoint.sealing.signature import copy_signature
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


def copy(saved: Saved, archive: Archive, progress: Progress = unwatched) -> int:
    """Make a checkpoint one of `archive`, sealed where that has recipients, and signed if it is; bytes sent.

    On return it is complete there, and was compared. DamagedError where it is not what was written; AlreadyThereError
    where the archive has another one of that step; MachineError where the archive fails; UserError where strangers may
    look into it.
    """
    send, manifest = _send_and_seal if archive.recipients else _send_plain, saved.manifest
    sent = _unless_there(archive, manifest.step, manifest.digest, lambda: send(saved, archive, progress))
    if signature := saved.signature():
        archive.put_signature(manifest.step, signature)
    return sent


def copy_sealed(sealed: SealedCheckpoint, archive: Archive, progress: Progress = unwatched) -> int:
    """The same for a sealed checkpoint, as it is; nobody needs to open it."""
    envelope = sealed.envelope
    sent = _unless_there(archive, envelope.step, envelope.manifest, lambda: _send_as_it_is(sealed, archive, progress))
    copy_signature(sealed, archive.store)
    return sent


def conflict(archive: Archive, step: int) -> str:
    """What to say where an archive has another checkpoint of a step than is to go there."""
    return (
        f"{archive.address} has another checkpoint of step {step}: two runs with the same beginning went on side by "
        "side, or one of the two holds weights only. Nothing was overwritten; it needs another place (of a run: "
        "storage.archives)"
    )


def _unless_there(archive: Archive, step: int, digest: str, send: Callable[[], int]) -> int:
    """Bytes sent: of the checkpoint with that manifest, where the archive does not have it."""
    try:
        if archive.read(step) is None:
            sent = send()
            archive.store.clear_unfinished(f"{archive.place(step)}/")
            return sent
    except AlreadyThereError:
        pass  # another process has come first
    found = archive.read(step)
    if found is None or found.digest != digest:
        raise AlreadyThereError(conflict(archive, step))
    return 0


def _send_plain(saved: Saved, archive: Archive, progress: Progress) -> int:
    objects = [
        _Object(
            record.model_copy(update={"name": object_name(record)}),
            f"{saved.address}/{record.name}",
            partial(saved.blocks, record),
        )
        for record in saved.manifest.files
    ]
    sent = _deliver(objects, archive, saved.manifest.step, progress)
    archive.commit(saved.manifest)
    return sent


def _send_and_seal(saved: Saved, archive: Archive, progress: Progress) -> int:
    sent: list[int] = []

    def blocks_of(record: FileRecord) -> Iterator[bytes]:
        sent.append(record.size)
        return checked(saved.blocks(record), record, f"{saved.address}/{record.name}", progress)

    manifest, place = saved.manifest, archive.place(saved.manifest.step)
    archive.store.check_room(manifest.size, len(manifest.files) + 2)
    seal_checkpoint(archive.store, place, manifest, blocks_of, archive.recipients, progress)
    return sum(sent)


def _send_as_it_is(sealed: SealedCheckpoint, archive: Archive, progress: Progress) -> int:
    envelope, store = sealed.envelope, sealed.store
    objects = [
        _Object(
            FileRecord(name=file.stored, size=file.size, sha256=file.sha256),
            f"{sealed.address}/{file.stored}",
            partial(store.blocks, f"{envelope.context}/{file.stored}"),
        )
        for file in envelope.files
    ]
    sent = _deliver(objects, archive, envelope.step, progress)
    archive.commit(envelope)
    return sent


def _deliver(objects: Sequence[_Object], archive: Archive, step: int, progress: Progress) -> int:
    """Have all objects at the place of a step, each of them compared there; bytes sent."""
    archive.store.check_private()
    there = {entry.name.rpartition("/")[2]: entry.size for entry in archive.objects(step)}

    def is_there(each: _Object) -> bool:
        """And has not decayed since it was written."""
        return there.get(each.record.name) == each.record.size and _is_whole(archive, step, each, progress)

    present = several(is_there, objects)
    owed = [each for each, is_present in zip(objects, present, strict=True) if not is_present]
    size = sum(each.record.size for each in owed)
    archive.store.check_room(size, len(owed) + 1)
    progress(sum(each.record.size for each in objects) - size)
    several(partial(_send, archive, step, progress), owed)
    return size


def _send(archive: Archive, step: int, progress: Progress, each: _Object) -> None:
    name, store = f"{archive.place(step)}/{each.record.name}", archive.store
    store.write(name, checked(each.blocks(), each.record, each.origin, progress), each.record.size)
    if not store.confirms and not _is_whole(archive, step, each, progress):
        raise MachineError(f"{store.address}/{name} does not keep what it is given")


def _is_whole(archive: Archive, step: int, each: _Object, progress: Progress) -> bool:
    blocks = archive.store.blocks(f"{archive.place(step)}/{each.record.name}")
    return check_blocks(blocks, each.record, reading_back(progress)) is None
