"""A sealed checkpoint in a store: what anyone can tell of it, without a key.

    LINEAGE/step-00000100/               the place, which every seal binds
      rank-00000.9f86d081884c7d65.sealed
      manifest.2c624232cdd221f0.sealed
      sealed.json                        the envelope (envelope.py), written last and never over another: the commit

writing.py makes one, opened.py reads what is in it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from aiftrain.checkpoint.digested import parse
from aiftrain.checkpoint.manifest import FileRecord
from aiftrain.checkpoint.pipeline import ahead, digesting
from aiftrain.checkpoint.progress import Progress, reading_back, unwatched
from aiftrain.checkpoint.sealing.envelope import ENVELOPE, Envelope, SealedFile, stored_name
from aiftrain.checkpoint.sealing.stream import seal_blocks
from aiftrain.checkpoint.several import several
from aiftrain.checkpoint.signing.bundle import SIGNATURE
from aiftrain.checkpoint.sources import StoredSource
from aiftrain.checkpoint.stores.base import Octets, Store
from aiftrain.checkpoint.verify import Fault, check_blocks
from aiftrain.errors import DamagedError, MachineError


@dataclass(frozen=True)
class SealedCheckpoint:
    """One complete checkpoint that is sealed."""

    store: Store
    envelope: Envelope

    @classmethod
    def read(cls, store: Store, place: str) -> SealedCheckpoint | None:
        """What is sealed at `place`; None where nothing is, DamagedError where its envelope is damaged."""
        envelope = read_envelope(store, place, ENVELOPE)
        return None if envelope is None else cls(store, envelope)

    @property
    def step(self) -> int:
        return self.envelope.step

    @property
    def address(self) -> str:
        return f"{self.store.address}/{self.envelope.context}"

    @property
    def digest(self) -> str:
        """The manifest's."""
        return self.envelope.manifest

    @property
    def rollbacks(self) -> int:
        """How often the run had gone back when it was made."""
        return self.envelope.rollbacks

    def verify(self, progress: Progress = unwatched) -> list[Fault]:
        """Read all objects, and compare with the digests in the envelope: whether they are what was stored.

        It cannot tell what was sealed; `OpenedCheckpoint.verify` can.
        """
        place = self.envelope.context
        faults = several(lambda file: stored_fault(self.store, place, file, progress), self.envelope.files)
        return [fault for fault in faults if fault is not None]

    def source(self, file: SealedFile) -> StoredSource:
        """The sealed bytes of a file. DamagedError where they are missing."""
        name = f"{self.envelope.context}/{file.stored}"
        entry = self.store.entry(name)
        if entry is None:
            raise DamagedError(f"{self.store.address}/{name} is missing")
        return StoredSource(self.store, entry)


def is_sealed_signature(name: str) -> bool:
    """Whether an object has the name of a sealed signature (signature.py)."""
    return bool(re.search(rf"/{PurePath(SIGNATURE).stem}\.[0-9a-f]{{16}}\.sealed$", name))


def read_envelope(store: Store, place: str, name: str) -> Envelope | None:
    """The envelope `name` at `place`; None where there is none, DamagedError where it is damaged, or of elsewhere."""
    full = f"{place}/{name}"
    if store.entry(full) is None:
        return None
    where = f"{store.address}/{full}"
    envelope = parse(b"".join(store.blocks(full)), where, Envelope)
    if envelope.context != place:
        raise DamagedError(f"{where} is of {envelope.context}")
    return envelope


def stored_fault(store: Store, place: str, file: SealedFile, progress: Progress = unwatched) -> Fault | None:
    """What is wrong with the object that a file is sealed in: all of it is read."""
    record = FileRecord(name=file.name, size=file.size, sha256=file.sha256)
    return check_blocks(store.blocks(f"{place}/{file.stored}"), record, progress)


def seal_file(
    store: Store,
    place: str,
    blocks: Iterable[Octets],
    *,
    name: str,
    size: int,
    recipients: Sequence[str],
    progress: Progress = unwatched,
) -> SealedFile:
    """Store a file of `size` bytes at `place`, sealed, and read it back where the store has not confirmed it.

    MachineError where the store fails, or does not keep what it is given; DamagedError where `blocks` are not `size`
    bytes; what they raise passes.
    """
    seal, sealed = seal_blocks(blocks, size, name=name, context=place, recipients=recipients)
    digest, stored = hashlib.sha256(), stored_name(name)
    store.write(f"{place}/{stored}", digesting(ahead(sealed), digest), seal.sealed_size)
    file = SealedFile(name=name, stored=stored, size=seal.sealed_size, sha256=digest.hexdigest(), seal=seal)
    fault = None if store.confirms else stored_fault(store, place, file, reading_back(progress))
    if fault is not None:
        raise MachineError(f"{store.address}/{place} does not keep what it is given: {fault}")
    return file
