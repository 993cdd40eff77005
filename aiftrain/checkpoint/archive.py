"""An archive: complete checkpoints of one run at another place than home, in any store.

    LINEAGE/
      rollbacks.json                               where the run went back, as at home (rollbacks.py)
      step-00000100/
        rank-00000.0123456789abcdef.safetensors    named after its content, the first digits of its SHA-256: two
        rank-00001.fedcba9876543210.safetensors    writers that do not agree never write the same object
        manifest.json                              the same bytes as at home, written last and never over another: the
                                                   commit
        damaged.0123456789abcdef.manifest.json     a commit that was set aside (or void., see catalog.py), named after
                                                   its content too

carry.py brings checkpoints here, fetch.py takes them home again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from aiftrain.checkpoint.digested import parse
from aiftrain.checkpoint.history import Rollback
from aiftrain.checkpoint.manifest import MANIFEST, FileRecord, Manifest
from aiftrain.checkpoint.progress import Progress, unwatched
from aiftrain.checkpoint.rollbacks import NAME as ROLLBACKS
from aiftrain.checkpoint.rollbacks import parse_rollbacks, rollbacks_json
from aiftrain.checkpoint.shards import CheckpointReader
from aiftrain.checkpoint.sources import Source, StoredSource
from aiftrain.checkpoint.stores.base import Entry, Store
from aiftrain.checkpoint.verify import Fault, check_blocks
from aiftrain.errors import DamagedError, MachineError, UserError


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

    def object(self, record: FileRecord) -> str:
        """The object that holds a file."""
        return f"{self.place}/{object_name(record)}"

    def reader(self) -> CheckpointReader:
        return CheckpointReader(self.address, self.manifest, self._source)

    def blocks(self, record: FileRecord) -> Iterator[bytes]:
        """The content of a file, unverified."""
        return self.store.blocks(self.object(record))

    def _source(self, name: str) -> Source:
        record = next(record for record in self.manifest.files if record.name == name)
        entry = self.store.entry(self.object(record))
        if entry is None:
            raise DamagedError(f"{self.store.address}/{self.object(record)} is missing")
        return StoredSource(self.store, entry)


class Archive:
    """The checkpoints of the run `lineage` in `store`."""

    def __init__(self, store: Store, lineage: str) -> None:
        self.store = store
        self.lineage = lineage

    @property
    def address(self) -> str:
        return f"{self.store.address}/{self.lineage}"

    def place(self, step: int) -> str:
        """What the names of all objects of a checkpoint begin with."""
        return f"{self.lineage}/step-{step:08d}"

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, in ascending order."""
        commit = re.compile(rf"{re.escape(self.lineage)}/step-(\d{{8,}})/{re.escape(MANIFEST)}")
        found = (commit.fullmatch(entry.name) for entry in self.store.entries(f"{self.lineage}/step-"))
        return sorted(int(each[1]) for each in found if each)

    def objects(self, step: int) -> list[Entry]:
        """All that lies in the place of a checkpoint, complete or not."""
        return list(self.store.entries(f"{self.place(step)}/"))

    def read(self, step: int) -> Archived | None:
        """The checkpoint of `step`, None where it is not complete, DamagedError where its manifest is."""
        name = self._commit(step)
        if self.store.entry(name) is None:
            return None
        manifest = parse(self._content(name), f"{self.store.address}/{name}", Manifest)
        if manifest.step != step:
            raise DamagedError(f"{self.store.address}/{name} is of step {manifest.step}")
        return Archived(self.store, self.place(step), manifest)

    def find(self, step: int) -> Archived:
        """The checkpoint of `step`; UserError, naming the steps there are, where there is none."""
        entry = self.read(step)
        if entry is None:
            complete = ", ".join(map(str, self.steps())) or "none"
            raise UserError(f"{self.address} has no complete checkpoint of step {step}; complete steps: {complete}")
        return entry

    def commit(self, manifest: Manifest) -> Archived:
        """Make what lies in the place of `manifest.step` a checkpoint: its files have arrived and are verified.

        AlreadyThereError where another one was committed there before, be it at the same moment.
        """
        name, content = self._commit(manifest.step), manifest.to_json().encode()
        self.store.write(name, [content], len(content), new=True)
        if self._content(name) != content:
            raise MachineError(f"{self.store.address}/{name} is not what was sent there")
        return Archived(self.store, self.place(manifest.step), manifest)

    def verify(self, step: int, progress: Progress = unwatched) -> list[Fault]:
        """Read the checkpoint of `step` in full, and compare with its manifest."""
        try:
            entry = self.find(step)
        except DamagedError as error:
            return [Fault(MANIFEST, str(error))]
        faults = (check_object(entry, record, progress) for record in entry.manifest.files)
        return [fault for fault in faults if fault is not None]

    def set_aside(self, step: int, why: Literal["damaged", "void"] = "damaged") -> None:
        """Have the checkpoint of `step` no longer count. Nothing of it is lost: its commit has another name."""
        content = self._content(self._commit(step))
        digest = hashlib.sha256(content).hexdigest()[:16]
        self.store.write(f"{self.place(step)}/{why}.{digest}.{MANIFEST}", [content], len(content))
        self.store.remove(self._commit(step))

    def remove(self, step: int) -> None:
        """Remove a checkpoint, complete or not, with all that lies in its place. The commit goes first."""
        self.store.remove(self._commit(step))
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

    def _commit(self, step: int) -> str:
        return f"{self.place(step)}/{MANIFEST}"

    def _content(self, name: str) -> bytes:
        return b"".join(self.store.blocks(name))


def check_object(entry: Archived, record: FileRecord, progress: Progress = unwatched) -> Fault | None:
    """What is wrong with a file in an archive: all of it is read."""
    return check_blocks(entry.blocks(record), record, progress)
