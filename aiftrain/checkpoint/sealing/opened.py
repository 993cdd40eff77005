"""What is in a sealed checkpoint, for who has an identity that opens it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aiftrain.checkpoint.digested import parse
from aiftrain.checkpoint.manifest import MANIFEST, FileRecord, Manifest
from aiftrain.checkpoint.progress import Progress, unwatched
from aiftrain.checkpoint.sealing.keys import Identities
from aiftrain.checkpoint.sealing.opening import Opening, data_key
from aiftrain.checkpoint.sealing.source import SealedSource, open_sealed
from aiftrain.checkpoint.sealing.stored import SealedCheckpoint
from aiftrain.checkpoint.shards import CheckpointReader
from aiftrain.checkpoint.stores.base import Store
from aiftrain.checkpoint.verify import Fault, check_contents
from aiftrain.errors import DamagedError


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A sealed checkpoint with its manifest. It serves wherever an `Archived` one does, and opens as it is read."""

    sealed: SealedCheckpoint
    identities: Identities
    manifest: Manifest

    @property
    def store(self) -> Store:
        return self.sealed.store

    @property
    def step(self) -> int:
        return self.manifest.step

    @property
    def place(self) -> str:
        return self.sealed.envelope.context

    @property
    def address(self) -> str:
        return self.sealed.address

    def object(self, record: FileRecord) -> str:
        """The object that holds a file."""
        return f"{self.sealed.envelope.context}/{self.sealed.envelope.file(record.name).stored}"

    def reader(self) -> CheckpointReader:
        return CheckpointReader(self.address, self.manifest, lambda name: open_file(self.sealed, name, self.identities))

    def blocks(self, record: FileRecord) -> Iterator[bytes]:
        """The content of a file: what was sealed, but not compared with `record`."""
        return open_blocks(self.sealed, record.name, self.identities)

    def verify(self, progress: Progress = unwatched) -> list[Fault]:
        """Open every file, and compare its content with the manifest."""
        return check_contents(self.manifest.files, self.blocks, progress)


def open_checkpoint(sealed: SealedCheckpoint, identities: Identities) -> OpenedCheckpoint:
    """UserError where none of `identities` opens it, DamagedError where its manifest is not that of its envelope."""
    where = f"{sealed.address}: {MANIFEST}"
    manifest = parse(b"".join(open_blocks(sealed, MANIFEST, identities)), where, Manifest)
    envelope = sealed.envelope
    if (manifest.digest, manifest.step) != (envelope.manifest, envelope.step):
        raise DamagedError(f"{where} is of step {manifest.step}, and not the one that the envelope speaks of")
    there, wanted = {file.name for file in envelope.files}, {MANIFEST, *(record.name for record in manifest.files)}
    if there != wanted:
        raise DamagedError(f"{where} and the envelope differ in their files: {', '.join(sorted(there ^ wanted))}")
    return OpenedCheckpoint(sealed, identities, manifest)


def open_blocks(sealed: SealedCheckpoint, name: str, identities: Identities) -> Iterator[bytes]:
    """The content of one file, from its beginning to its end. Errors as of `data_key` and `Opening.all`."""
    file, envelope = sealed.envelope.file(name), sealed.envelope
    stored = f"{envelope.context}/{file.stored}"
    where = f"{sealed.store.address}/{stored}"
    secret = data_key(file.seal, identities, where, envelope.recipients)
    return Opening(file.seal, secret, name, envelope.context, where).all(sealed.store.blocks(stored))


def open_file(sealed: SealedCheckpoint, name: str, identities: Identities) -> SealedSource:
    """The content of one file, to be read at random."""
    file, envelope = sealed.envelope.file(name), sealed.envelope
    return open_sealed(
        sealed.source(file), file.seal, identities, name=name, context=envelope.context, recipients=envelope.recipients
    )
