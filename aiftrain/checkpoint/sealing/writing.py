"""Sealing a whole checkpoint into a store; who was interrupted goes on with the files that were done.

The data key of a file stands nowhere but in its seal. So the seals that are done are noted beside the objects now and
then, in sealing.json: an envelope that is not complete yet, which holds nothing that sealed.json would not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from threading import Lock

from aiftrain.checkpoint.manifest import MANIFEST, FileRecord, Manifest
from aiftrain.checkpoint.progress import Progress, reading_back, unwatched
from aiftrain.checkpoint.rollbacks import known_rollbacks
from aiftrain.checkpoint.sealing.envelope import ENVELOPE, Envelope, SealedFile
from aiftrain.checkpoint.sealing.stored import (
    SealedCheckpoint,
    is_sealed_signature,
    read_envelope,
    seal_file,
    stored_fault,
)
from aiftrain.checkpoint.several import several
from aiftrain.checkpoint.stores.base import Octets, Store
from aiftrain.errors import DamagedError, MachineError

UNFINISHED = "sealing.json"
_NOTE_EVERY = 60.0  # seconds: what a crash costs, at most, besides the file that is under way

BlocksOf = Callable[[FileRecord], Iterable[Octets]]


def seal_checkpoint(
    store: Store,
    place: str,
    manifest: Manifest,
    blocks_of: BlocksOf,
    recipients: Sequence[str],
    progress: Progress = unwatched,
    *,
    new: bool = True,
) -> SealedCheckpoint:
    """Make the checkpoint that `manifest` describes one at `place`, sealed. On return all of it was read back there.

    `blocks_of` gives the content of a file, tells `progress` of it, and raises before its last block where it is not
    what its record says. AlreadyThereError where the place has a sealed checkpoint, which is replaced unless this is to
    be a `new` one; MachineError where the store fails; UserError where strangers may look into it: how many files there
    are, and when, is theirs to see in spite of seals.
    """
    store.check_private()
    writer = _Writer(store, place, manifest, recipients, anew=not new)
    writer.resume(progress)
    owed = [record for record in manifest.files if record.name not in writer.done]
    several(lambda record: writer.add(record.name, blocks_of(record), record.size, progress), owed)
    content = manifest.to_json().encode()
    if MANIFEST not in writer.done:
        writer.add(MANIFEST, [content], len(content), progress)
    return writer.commit(new=new)


class _Writer:
    """The files at a place that are sealed so far."""

    def __init__(self, store: Store, place: str, manifest: Manifest, recipients: Sequence[str], *, anew: bool) -> None:
        self.store = store
        self.place = place
        self.manifest = manifest
        self.recipients = list(recipients)
        self.anew = anew
        self.done: dict[str, SealedFile] = {}
        self._noted = time.monotonic()
        self._lock = Lock()

    def resume(self, progress: Progress) -> None:
        """Count on what another one has noted, where it is whole and sealed for the same recipients."""
        noted = self._unfinished()
        if noted is None or (noted.manifest, noted.recipients) != (self.manifest.digest, self.recipients):
            return
        look = reading_back(progress)
        faults = several(lambda file: stored_fault(self.store, self.place, file, look), noted.files)
        self.done = {file.name: file for file, fault in zip(noted.files, faults, strict=True) if fault is None}
        progress(sum(file.seal.size for file in self.done.values()))

    def add(self, name: str, blocks: Iterable[Octets], size: int, progress: Progress) -> None:
        """Threads may share it."""
        file = seal_file(
            self.store, self.place, blocks, name=name, size=size, recipients=self.recipients, progress=progress
        )
        with self._lock:
            self.done[name] = file
            if time.monotonic() >= self._noted + _NOTE_EVERY:
                self._write(UNFINISHED)
                self._noted = time.monotonic()

    def commit(self, *, new: bool) -> SealedCheckpoint:
        sealed = SealedCheckpoint(self.store, self._write(ENVELOPE, new=new))
        found = read_envelope(self.store, self.place, ENVELOPE)
        if found != sealed.envelope:
            raise MachineError(f"{sealed.address}/{ENVELOPE} is not what was sent there")
        tidy(sealed)
        return sealed

    def _unfinished(self) -> Envelope | None:
        try:
            return read_envelope(self.store, self.place, UNFINISHED)
        except DamagedError:
            return None  # then all is sealed anew

    def _write(self, name: str, *, new: bool = False) -> Envelope:
        envelope = Envelope(
            context=self.place,
            step=self.manifest.step,
            manifest=self.manifest.digest,
            rollbacks=known_rollbacks(self.manifest),
            anew=True if self.anew else None,
            recipients=self.recipients,
            files=list(self.done.values()),
        )
        content = envelope.to_json().encode()
        self.store.write(f"{self.place}/{name}", [content], len(content), new=new)
        return envelope


def tidy(sealed: SealedCheckpoint) -> None:
    """Remove what interrupted writers left. Not where a commit was set aside: it has its objects."""
    store, envelope = sealed.store, sealed.envelope
    store.remove(f"{envelope.context}/{UNFINISHED}")
    there = {entry.name for entry in store.entries(f"{envelope.context}/")}
    if any(name.endswith(f".{ENVELOPE}") for name in there):
        return
    for name in there - {f"{envelope.context}/{file.stored}" for file in envelope.files}:
        if name.endswith(".sealed") and not is_sealed_signature(name):
            store.remove(name)
