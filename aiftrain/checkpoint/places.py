"""Where checkpoints of a run are: at home (a run folder) or in an archive.

A place that is named by a person may be an archive with several runs, each under its lineage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aiftrain.checkpoint.archive import Archive, Contents, Stored, open_contents
from aiftrain.checkpoint.archived_custody import custody_faults, read_custody
from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.listing import Summary, kind, summaries
from aiftrain.checkpoint.manifest import MANIFEST
from aiftrain.checkpoint.progress import Progress, unwatched
from aiftrain.checkpoint.saved import Saved, saved_at_home, saved_away
from aiftrain.checkpoint.sealing.envelope import ENVELOPE
from aiftrain.checkpoint.sealing.keys import Identities
from aiftrain.checkpoint.sealing.opened import open_checkpoint
from aiftrain.checkpoint.sealing.stored import SealedCheckpoint
from aiftrain.checkpoint.signing.checkpoint import signature_faults
from aiftrain.checkpoint.signing.keys import PublicKey
from aiftrain.checkpoint.stores.base import Entry, Store
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.checkpoint.verify import Fault
from aiftrain.errors import DamagedError, UserError
from aiftrain.run.folder import RunFolder
from aiftrain.run.spec import RunSpec

_LINEAGE = re.compile("[0-9a-f]{12}")


class Place(Protocol):
    """The checkpoints of one run at one place."""

    @property
    def address(self) -> str: ...

    @property
    def lineage(self) -> str: ...

    def summaries(self) -> list[Summary]:
        """One for each step there is something of, complete or not, oldest first."""
        ...

    def find(self, step: int | None = None) -> Saved:
        """The checkpoint of a step, or the newest. UserError where there is none, DamagedError where it is damaged."""
        ...

    def verify(self, step: int, progress: Progress = unwatched) -> list[Fault]:
        """What is wrong with a complete checkpoint: all of it is read."""
        ...

    def remove(self, step: int) -> None:
        """Remove what there is of a step; of a complete checkpoint the commit first."""
        ...

    def custody(self) -> bytes:
        """The lines of custody.jsonl; empty where there is none. DamagedError where one is not what was written."""
        ...


@dataclass(frozen=True)
class Home:
    """Where the run of a folder writes."""

    folder: RunFolder
    spec: RunSpec
    catalog: Catalog

    @classmethod
    def of(cls, folder: RunFolder) -> Home:
        spec = folder.read_spec()
        return cls(folder, spec, Catalog.of_run(folder, spec))

    @property
    def address(self) -> str:
        return str(self.catalog.folder)

    @property
    def lineage(self) -> str:
        return self.spec.lineage

    def summaries(self) -> list[Summary]:
        return summaries(self.catalog)

    def find(self, step: int | None = None) -> Saved:
        return saved_at_home(self.catalog.find(step))

    def verify(self, step: int, progress: Progress = unwatched) -> list[Fault]:
        return self.catalog.verify(step, progress)

    def remove(self, step: int) -> None:
        self.catalog.remove(step)

    def custody(self) -> bytes:
        return self.catalog.custody.checked_text()


@dataclass(frozen=True)
class Away:
    """An archive, or the part of one that is this run's. `identity`: the file of the key that opens what is sealed.

    Without it, that which AIFTRAIN_IDENTITY_FILE names.
    """

    archive: Archive
    identity: Path | None = None

    @property
    def address(self) -> str:
        return self.archive.address

    @property
    def lineage(self) -> str:
        return self.archive.lineage

    def summaries(self) -> list[Summary]:
        return [self._summary(step, entries) for step, entries in sorted(self._steps().items())]

    def find(self, step: int | None = None) -> Saved:
        steps = self.archive.steps() if step is None else [step]
        if not steps:
            raise UserError(f"{self.address} has no complete checkpoint")
        return saved_away(self.contents(steps[-1]))

    def contents(self, step: int) -> Contents:
        """A complete checkpoint, opened where it is sealed."""
        return open_contents(self.archive.find(step), identity=self.identity)

    def verify(
        self,
        step: int,
        progress: Progress = unwatched,
        identities: Identities | None = None,
        signer: PublicKey | None = None,
    ) -> list[Fault]:
        """Read a complete checkpoint again. Without `identities`, what is sealed is compared as it is stored.

        With `signer`, one that is not signed with its key is at fault as well; UserError where that is sealed.
        """
        try:
            entry = self.archive.find(step)
            put_back = custody_faults(self.archive.store, self.lineage, step, entry.digest)
            return [*put_back, *_faults(entry, progress, identities, signer)]
        except DamagedError as error:
            return [Fault("the commit", str(error))]

    def clear_unfinished(self, age: float) -> None:
        """End what was begun so many seconds ago, and never finished."""
        self.archive.store.clear_unfinished(f"{self.lineage}/", older_than=age)

    def remove(self, step: int) -> None:
        self.archive.remove(step)

    def custody(self) -> bytes:
        return read_custody(self.archive.store, self.lineage)

    def _steps(self) -> dict[int, list[Entry]]:
        """All objects by their step."""
        prefix, steps = f"{self.lineage}/step-", dict[int, list[Entry]]()
        for entry in self.archive.store.entries(prefix):
            number = entry.name.removeprefix(prefix).partition("/")[0]
            if number.isdecimal():
                steps.setdefault(int(number), []).append(entry)
        return steps

    def _summary(self, step: int, entries: list[Entry]) -> Summary:
        size, written = sum(entry.size for entry in entries), max(entry.modified for entry in entries)
        if not _is_committed(entries):
            return Summary(step, "incomplete", size, time=written)
        try:
            found = self.archive.find(step)
        except DamagedError as error:
            return Summary(step, "damaged", size, message=str(error))
        if isinstance(found, SealedCheckpoint):
            return Summary(step, "complete", size, time=written, message="complete, sealed")
        manifest = found.manifest
        return Summary(step, "complete", size, manifest.tokens, manifest.time, kind(manifest))


def _faults(entry: Stored, progress: Progress, identities: Identities | None, signer: PublicKey | None) -> list[Fault]:
    if isinstance(entry, SealedCheckpoint):
        if identities is None:
            if signer:
                raise UserError(f"{entry.address} is sealed, and so is its signature: --identity FILE opens it")
            return entry.verify(progress)
        contents: Contents = open_checkpoint(entry, identities)
    else:
        contents = entry
    unsigned = signature_faults(saved_away(contents), [signer]) if signer else []
    return [*unsigned, *contents.verify(progress)]


def _is_committed(entries: list[Entry]) -> bool:
    return any(entry.name.rpartition("/")[2] in (MANIFEST, ENVELOPE) for entry in entries)


def archives_in(store: Store, digits: str = "", identity: Path | None = None) -> list[Away]:
    """The runs in a store whose lineage begins with `digits`. UserError, naming those there are, where none does."""
    there = sorted(set(filter(_LINEAGE.fullmatch, _first_parts(store))))
    found = [Away(Archive(store, lineage), identity) for lineage in there if lineage.startswith(digits)]
    if not there:
        raise UserError(
            f"{store.address} is no archive: nothing in it is named after a run (12 hexadecimal digits); "
            "name a run folder, or a folder or bucket that `python -m aiftrain ship` has filled"
        )
    if not found:
        raise UserError(f"{store.address} has no run that begins with {digits}; there are: {', '.join(there)}")
    return found


def _first_parts(store: Store) -> Iterator[str]:
    if isinstance(store, FolderStore):  # whose other folders, if it is no archive after all, may be very large
        with machine_errors("read", store.folder):
            yield from (each.name for each in store.folder.iterdir() if each.is_dir())
    else:
        yield from (entry.name.partition("/")[0] for entry in store.entries())


def looks_like_one_run(folder: Path) -> bool:
    """Whether a folder is the part of an archive that belongs to one run: named after it, with steps below."""
    return bool(_LINEAGE.fullmatch(folder.name)) and any(folder.glob("step-*"))
