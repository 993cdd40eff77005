"""An archive: complete checkpoints of one run at another place than home, in any store.

    LINEAGE/
      custody.jsonl                                what happened to them at home (archived_custody.py)
      rollbacks.json                               where the run went back, as at home (rollbacks.py)
      step-00000100/
        rank-00000.0123456789abcdef.safetensors    named after its content, the first digits of its SHA-256: two
        rank-00001.fedcba9876543210.safetensors    writers that do not agree never write the same object
        manifest.json                              the same bytes as at home, written last and never over another: the
                                                   commit
        model.sig                                  the signature, if there is one; it may come later
        damaged.0123456789abcdef.manifest.json     a commit that was set aside (or void., see catalog.py), named after
                                                   its content too
      step-00000200/                               sealed, with sealed.json as the commit (sealing/stored.py); where
                                                   there is a plain one too, it is being replaced (sealing/in_place.py)

copying.py brings checkpoints here, fetch.py takes them home again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aiftrain.checkpoint.digested import parse
from aiftrain.checkpoint.history import Rollback
from aiftrain.checkpoint.manifest import MANIFEST, FileRecord, Manifest
from aiftrain.checkpoint.progress import Progress, unwatched
from aiftrain.checkpoint.rollbacks import NAME as ROLLBACKS
from aiftrain.checkpoint.rollbacks import known_rollbacks, parse_rollbacks, rollbacks_json
from aiftrain.checkpoint.sealing.envelope import ENVELOPE, SIGNATURE_ENVELOPE, Envelope
from aiftrain.checkpoint.sealing.keys import Identities
from aiftrain.checkpoint.sealing.opened import OpenedCheckpoint, open_checkpoint
from aiftrain.checkpoint.sealing.signature import open_signature, seal_signature
from aiftrain.checkpoint.sealing.stored import SealedCheckpoint
from aiftrain.checkpoint.shards import CheckpointReader
from aiftrain.checkpoint.signing.bundle import SIGNATURE
from aiftrain.checkpoint.sources import Source, StoredSource
from aiftrain.checkpoint.stores.base import Entry, Store
from aiftrain.checkpoint.verify import Fault, check_contents
from aiftrain.errors import DamagedError, MachineError, UserError

_COMMITS = (ENVELOPE, MANIFEST)  # the first one counts
_SIGNATURES = (SIGNATURE, SIGNATURE_ENVELOPE)


def object_name(record: FileRecord) -> str:
    """What a file of a checkpoint is called in an archive."""
    stem, dot, ending = record.name.partition(".")
    return f"{stem}.{record.sha256[:16]}{dot}{ending}"


@dataclass(frozen=True)
class Archived:
    """One complete checkpoint in a store, its objects below `place`."""

    store: Store
    place: str
    manifest: Manifest

    @property
    def step(self) -> int:
        return self.manifest.step

    @property
    def address(self) -> str:
        return f"{self.store.address}/{self.place}"

    @property
    def digest(self) -> str:
        """The manifest's."""
        return self.manifest.digest

    @property
    def rollbacks(self) -> int:
        """How often the run had gone back when it was made."""
        return known_rollbacks(self.manifest)

    def verify(self, progress: Progress = unwatched) -> list[Fault]:
        """Read all objects, and compare with the manifest."""
        return check_contents(self.manifest.files, self.blocks, progress)

    def object(self, record: FileRecord) -> str:
        """The object that holds a file."""
        return f"{self.place}/{object_name(record)}"

    def reader(self) -> CheckpointReader:
        return CheckpointReader(self.address, self.manifest, self._source)

    def blocks(self, record: FileRecord) -> Iterator[bytes]:
        """The content of a file, unverified."""
        return self.store.blocks(self.object(record))

    def signature(self) -> bytes | None:
        """What was written as its signature; None where nothing was."""
        name = f"{self.place}/{SIGNATURE}"
        return b"".join(self.store.blocks(name)) if self.store.entry(name) else None

    def _source(self, name: str) -> Source:
        record = next(record for record in self.manifest.files if record.name == name)
        entry = self.store.entry(self.object(record))
        if entry is None:
            raise DamagedError(f"{self.store.address}/{self.object(record)} is missing")
        return StoredSource(self.store, entry)


Stored = Archived | SealedCheckpoint
Contents = Archived | OpenedCheckpoint  # whose files can be read


class Archive:
    """The checkpoints of the run `lineage` in `store`. What comes there is sealed for `recipients`, if any."""

    def __init__(self, store: Store, lineage: str, recipients: Sequence[str] = ()) -> None:
        self.store = store
        self.lineage = lineage
        self.recipients = tuple(recipients)

    @property
    def address(self) -> str:
        return f"{self.store.address}/{self.lineage}"

    def place(self, step: int) -> str:
        """What the names of all objects of a checkpoint begin with."""
        return f"{self.lineage}/step-{step:08d}"

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, in ascending order."""
        commits = "|".join(map(re.escape, _COMMITS))
        commit = re.compile(rf"{re.escape(self.lineage)}/step-(\d{{8,}})/({commits})")
        found = (commit.fullmatch(entry.name) for entry in self.store.entries(f"{self.lineage}/step-"))
        return sorted({int(each[1]) for each in found if each})

    def objects(self, step: int) -> list[Entry]:
        """All that lies in the place of a checkpoint, complete or not."""
        return list(self.store.entries(f"{self.place(step)}/"))

    def read(self, step: int) -> Stored | None:
        """The checkpoint of `step`, None where it is not complete, DamagedError where its commit is."""
        return SealedCheckpoint.read(self.store, self.place(step)) or self.read_plain(step)

    def read_plain(self, step: int) -> Archived | None:
        """The same, but it is not sealed."""
        name = self._plain_commit(step)
        if self.store.entry(name) is None:
            return None
        manifest = parse(self._content(name), f"{self.store.address}/{name}", Manifest)
        if manifest.step != step:
            raise DamagedError(f"{self.store.address}/{name} is of step {manifest.step}")
        return Archived(self.store, self.place(step), manifest)

    def is_sealed(self, step: int) -> bool:
        """Whether the checkpoint of `step` is complete and sealed; be it damaged."""
        return self._commit(step) == ENVELOPE

    def find(self, step: int) -> Stored:
        """The checkpoint of `step`; UserError, naming the steps there are, where there is none."""
        entry = self.read(step)
        if entry is None:
            complete = ", ".join(map(str, self.steps())) or "none"
            raise UserError(f"{self.address} has no complete checkpoint of step {step}; complete steps: {complete}")
        return entry

    def commit(self, document: Manifest | Envelope) -> None:
        """Make what lies in the place of its step a checkpoint: all that it lists has arrived and is verified.

        AlreadyThereError where another one was committed there before, be it at the same moment.
        """
        commit = MANIFEST if isinstance(document, Manifest) else ENVELOPE
        name, content = f"{self.place(document.step)}/{commit}", document.to_json().encode()
        self.store.write(name, [content], len(content), new=True)
        if self._content(name) != content:
            raise MachineError(f"{self.store.address}/{name} is not what was sent there")

    def put_signature(self, step: int, content: bytes) -> None:
        """Have the checkpoint of `step`, which is complete, signed so; sealed where it is. MachineError: it is not."""
        entry = self.read(step)
        if entry is None:
            raise MachineError(f"{self.address} has lost its checkpoint of step {step}")
        if isinstance(entry, SealedCheckpoint):
            seal_signature(entry, content)
        elif entry.signature() != content:
            self.store.write(f"{entry.place}/{SIGNATURE}", [content], len(content))
            if entry.signature() != content:
                raise MachineError(f"{entry.address}/{SIGNATURE} is not what was sent there")

    def verify(self, step: int, progress: Progress = unwatched) -> list[Fault]:
        """Read the objects of the checkpoint of `step` in full, and compare with its commit."""
        try:
            return self.find(step).verify(progress)
        except DamagedError as error:
            return [Fault(self._commit(step) or self.place(step), str(error))]

    def set_aside(self, step: int, why: Literal["damaged", "void"] = "damaged") -> None:
        """Have the checkpoint of `step` no longer count. Nothing of it is lost: its commit has another name."""
        commit = self._commit(step)
        if commit is None:
            return
        for name in (*_SIGNATURES, commit):
            full = f"{self.place(step)}/{name}"
            if self.store.entry(full) is not None:
                content = self._content(full)
                aside = f"{self.place(step)}/{why}.{hashlib.sha256(content).hexdigest()[:16]}.{name}"
                self.store.write(aside, [content], len(content))
                self.store.remove(full)

    def remove(self, step: int) -> None:
        """Remove a checkpoint, complete or not, with all that lies in its place. The commit goes first."""
        for commit in _COMMITS:
            self.store.remove(f"{self.place(step)}/{commit}")
        for entry in self.objects(step):
            self.store.remove(entry.name)

    def rollbacks(self) -> tuple[Rollback, ...]:
        """Where the run went back, as far as this archive has heard."""
        name = f"{self.lineage}/{ROLLBACKS}"
        if self.store.entry(name) is None:
            return ()
        return parse_rollbacks(self._content(name), f"{self.store.address}/{name}")

    def write_rollbacks(self, rollbacks: tuple[Rollback, ...]) -> None:
        content = rollbacks_json(rollbacks).encode()
        self.store.write(f"{self.lineage}/{ROLLBACKS}", [content], len(content))

    def _plain_commit(self, step: int) -> str:
        return f"{self.place(step)}/{MANIFEST}"

    def _commit(self, step: int) -> str | None:
        """The one of a checkpoint that is complete."""
        found = (commit for commit in _COMMITS if self.store.entry(f"{self.place(step)}/{commit}") is not None)
        return next(found, None)

    def _content(self, name: str) -> bytes:
        return b"".join(self.store.blocks(name))


def signature_of(entry: Contents) -> bytes | None:
    """The signature of a checkpoint; None where it has none. DamagedError where it is sealed, and damaged."""
    return entry.signature() if isinstance(entry, Archived) else open_signature(entry.sealed, entry.identities)


def open_contents(entry: Stored, manifest: Manifest | None = None, identity: Path | None = None) -> Contents:
    """What is in a checkpoint. `manifest`: as another rank has read it already.

    UserError where it is sealed, and neither `identity` nor AIFTRAIN_IDENTITY_FILE names an identity that opens it.
    """
    if isinstance(entry, Archived):
        return entry
    try:
        identities = Identities.given(identity)
    except UserError as error:
        raise UserError(f"{entry.address} is sealed for {', '.join(entry.envelope.recipients)}: {error}") from None
    return OpenedCheckpoint(entry, identities, manifest) if manifest else open_checkpoint(entry, identities)
