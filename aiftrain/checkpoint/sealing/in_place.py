"""A plain checkpoint in an archive becomes a sealed one: sealed beside itself, read back, then the plain one goes.

While both are there the sealed one counts (archive.py). The plain commit is the last to go: who was interrupted finds
in it what is still to be removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aiftrain.checkpoint.archive import Archive, Archived
from aiftrain.checkpoint.manifest import MANIFEST, FileRecord
from aiftrain.checkpoint.progress import Progress, unwatched
from aiftrain.checkpoint.sealing.signature import seal_signature
from aiftrain.checkpoint.sealing.stored import SealedCheckpoint
from aiftrain.checkpoint.sealing.writing import seal_checkpoint
from aiftrain.checkpoint.signing.bundle import SIGNATURE
from aiftrain.checkpoint.verify import Fault, checked
from aiftrain.errors import DamagedError

Verify = Callable[[SealedCheckpoint], list[Fault]]


def seal_in_place(archive: Archive, step: int, verify: Verify, progress: Progress = unwatched) -> bool:
    """Seal the checkpoint of `step` for the archive's recipients; whether there was a plain one.

    `verify` reads the sealed one again, before anything is removed. DamagedError where it finds faults, the plain one
    is damaged, or it is another one than the sealed one beside it; UserError where there is neither.
    """
    plain = archive.read_plain(step)
    if plain is None:
        archive.find(step)  # or say what there is
        return False
    sealed = SealedCheckpoint.read(archive.store, plain.place) or _seal(plain, archive, progress)
    if sealed.digest != plain.digest:
        raise DamagedError(f"{plain.address} has a sealed and a plain checkpoint, which are not the same: remove one")
    if signature := plain.signature():
        seal_signature(sealed, signature)
    if faults := verify(sealed):
        raise DamagedError(f"{sealed.address} is damaged, the plain one stays: {'; '.join(map(str, faults))}")
    _remove(plain)
    return True


def _seal(plain: Archived, archive: Archive, progress: Progress) -> SealedCheckpoint:
    def blocks_of(record: FileRecord) -> Iterator[bytes]:
        return checked(plain.blocks(record), record, f"{plain.store.address}/{plain.object(record)}", progress)

    return seal_checkpoint(plain.store, plain.place, plain.manifest, blocks_of, archive.recipients, progress)


def _remove(plain: Archived) -> None:
    for record in plain.manifest.files:
        plain.store.remove(plain.object(record))
    plain.store.remove(f"{plain.place}/{SIGNATURE}")
    plain.store.remove(f"{plain.place}/{MANIFEST}")
