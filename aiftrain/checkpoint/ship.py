"""Shipping: every complete checkpoint of home that an archive lacks goes there, newest first.

What an archive has, it is asked in every round; shipped.json (ledger.py) only saves reading manifests. Nothing here
changes home but that file, and nothing that dies in the middle leaves more than objects without a commit.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.archived_custody import bring_custody, supersede_custody
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.copying import conflict, copy
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.ledger import Arrival, Ledger
from aiftrain.checkpoint.manifest import MANIFEST
from aiftrain.checkpoint.rollbacks import read_rollbacks, went_back_from
from aiftrain.checkpoint.saved import saved_at_home
from aiftrain.checkpoint.stores.base import AlreadyThereError
from aiftrain.checkpoint.stores.opening import open_store
from aiftrain.errors import DamagedError, MachineError, UserError
from aiftrain.run.lock import PATIENCE, RunLock, read_holder
from aiftrain.run.spec import RunSpec
from aiftrain.run.storage import ArchiveSpec

LOCK = "ship.lock"


class Watch(Protocol):
    """Who looks on. `progress` hears bytes; what it raises ends the round."""

    def begins(self, checkpoint: Checkpoint, archive: str) -> None: ...

    def progress(self, size: int) -> None: ...

    def arrived(self, arrival: Arrival) -> None: ...

    def signed(self, arrival: Arrival) -> None:
        """The signature has followed, of a checkpoint that arrived before."""
        ...

    def failed(self, failure: Failure) -> None: ...


@dataclass(frozen=True)
class Failure:
    """What went wrong with an archive, or with one checkpoint on the way there. `lasting`: trying again is no use."""

    archive: str
    step: int | None
    message: str
    lasting: bool


@dataclass(frozen=True)
class Destination:
    """An archive that is yet to be opened: it may be out of reach now and not later."""

    address: str
    open: Callable[[], Archive]


def destinations(spec: RunSpec) -> list[Destination]:
    """The archives of a run."""
    return [Destination(each.address, partial(open_archive, each, spec)) for each in spec.storage.archives]


def open_archive(archive: ArchiveSpec, run: RunSpec) -> Archive:
    """The checkpoints of a run there. MachineError where it is out of reach, UserError where it may not be used."""
    return Archive(open_store(archive, run), run.lineage, run.storage.seal.for_archives)


@contextlib.contextmanager
def shipping_lock(catalog: Catalog, patience: float = PATIENCE) -> Iterator[None]:
    """The right to ship from a home. UserError where another process has it, for `patience` seconds."""
    with machine_errors("create", catalog.folder):
        catalog.folder.mkdir(parents=True, exist_ok=True)
    lock = RunLock(catalog.folder / LOCK)
    try:
        lock.acquire(patience)
    except UserError:
        raise UserError(f"another shipper is at work in {catalog.folder}: {read_holder(lock.path)}") from None
    try:
        yield
    finally:
        lock.release()


@dataclass
class _Place:
    """An archive in one round: the steps it had at its beginning, and those settled since, one way or the other."""

    archive: Archive
    address: str
    steps: set[int]
    settled: set[int] = field(default_factory=set)
    lost: bool = False


class Shipper:
    """Carries checkpoints from `catalog` to all of `destinations`. One at a time in a home."""

    def __init__(self, catalog: Catalog, destinations: Sequence[Destination], watch: Watch) -> None:
        self.catalog = catalog
        self.destinations = destinations
        self.watch = watch
        self.ledger = Ledger(catalog.folder)
        self._failures: list[Failure] = []
        self._refusals: dict[str, UserError] = {}  # of archives, in this round
        self._custody: dict[str, bytes] = {}  # what each archive has of it

    def round(self) -> list[Failure]:
        """Carry all that is owed, that which is saved meanwhile too. What failed; nothing: every archive has all.

        UserError where no archive may be used: its keys, say, have ended. One alone keeps nothing from the others.
        """
        self._failures, self._refusals = [], {}
        places = [place for destination in self.destinations if (place := self._open(destination))]
        while pair := self._next(places):
            self._settle(*pair)
        for place in places:
            self._bring_custody(place)
        if self._refusals and len(self._refusals) == len(self.destinations):
            raise next(iter(self._refusals.values()))
        for address, refusal in self._refusals.items():
            self._fail(address, None, str(refusal), lasting=True)
        return self._failures

    def _open(self, destination: Destination) -> _Place | None:
        """An archive with all it has, after it has heard where the run went back."""
        try:
            archive = destination.open()
            self._tell_rollbacks(archive)
            return _Place(archive, destination.address, set(archive.steps()))
        except MachineError as error:
            self._fail(destination.address, None, str(error), lasting=isinstance(error, DamagedError))
        except UserError as error:
            self._refusals[destination.address] = error
        return None

    def _tell_rollbacks(self, archive: Archive) -> None:
        """Have the checkpoints that the run went back from no longer count there."""
        rollbacks = read_rollbacks(self.catalog)
        known = archive.rollbacks() if rollbacks else ()
        if len(rollbacks) <= len(known):
            return
        for step in archive.steps():
            entry = archive.read(step)
            if entry is not None and went_back_from(step, entry.rollbacks, rollbacks):
                archive.set_aside(step, "void")
        archive.write_rollbacks(rollbacks)

    def _next(self, places: Sequence[_Place]) -> tuple[Checkpoint, _Place] | None:
        reachable = [place for place in places if not place.lost]
        for entry in reversed(self.catalog.entries() if reachable else []):
            for place in reachable:
                if entry.step not in place.settled:
                    return entry, place
        return None

    def _settle(self, entry: Checkpoint, place: _Place) -> None:
        place.settled.add(entry.step)
        try:
            if not self._has(place, entry):
                self._bring(entry, place)
            self._bring_signature(entry, place)
        except DamagedError as error:
            if (entry.folder / MANIFEST).exists():  # else retention has removed it meanwhile
                self._fail(place.address, entry.step, str(error), lasting=True)
        except AlreadyThereError as error:
            self._fail(place.address, entry.step, str(error), lasting=True)
        except MachineError as error:
            place.lost = True
            self._fail(place.address, entry.step, str(error), lasting=False)
        except UserError as error:
            self._refused(place, error)

    def _has(self, place: _Place, entry: Checkpoint) -> bool:
        """Whether an archive has a checkpoint. AlreadyThereError where it has another one of that step."""
        if entry.step not in place.steps:
            return False
        if self.ledger.has(entry.manifest, place.address):
            return True
        try:
            found = place.archive.read(entry.step)
        except DamagedError:
            place.archive.set_aside(entry.step)
            return False
        if found is None:
            return False
        if found.digest != entry.manifest.digest:
            raise AlreadyThereError(conflict(place.archive, entry.step))
        self._note(place, entry, sent=0)
        return True

    def _bring(self, entry: Checkpoint, place: _Place) -> None:
        self._bring_custody(place)  # first: no killed shipper leaves a checkpoint there that custody speaks against
        if place.lost:
            return
        self.watch.begins(entry, place.address)
        saved = saved_at_home(entry)
        signature = saved.signature()
        sent = copy(saved, place.archive, self.watch.progress)
        self.watch.arrived(self._note(place, entry, sent, signature))

    def _bring_signature(self, entry: Checkpoint, place: _Place) -> None:
        """A checkpoint may be signed long after it arrived."""
        signature, noted = saved_at_home(entry).signature(), self.ledger.find(entry.manifest, place.address)
        if signature and noted and noted.signature != _sha256(signature):
            place.archive.put_signature(entry.step, signature)
            self.watch.signed(self._note(place, entry, noted.sent, signature))

    def _bring_custody(self, place: _Place) -> None:
        """Whatever home has noted since this process last brought it there."""
        now = self.catalog.custody.text()
        if place.lost or self._custody.get(place.address) == now:
            return
        told = None
        try:
            place.archive.store.check_private()
            text = self.catalog.custody.checked_text()
            if not bring_custody(text, place.archive):
                told = supersede_custody(text, place.archive)
        except DamagedError as error:  # home's; no reason not to carry checkpoints
            told = str(error)
        except MachineError as error:
            place.lost = True
            self._fail(place.address, None, str(error), lasting=False)
            return
        except UserError as error:
            self._refused(place, error)
            return
        self._custody[place.address] = now
        if told:
            self._fail(place.address, None, told, lasting=True)

    def _refused(self, place: _Place, error: UserError) -> None:
        place.lost = True
        self._refusals[place.address] = error

    def _note(self, place: _Place, entry: Checkpoint, sent: int, signature: bytes | None = None) -> Arrival:
        arrival = Arrival(
            step=entry.step,
            digest=entry.manifest.digest,
            archive=place.address,
            time=time.time(),
            size=entry.manifest.size,
            sent=sent,
            signature=_sha256(signature) if signature else None,
        )
        self.ledger.add(arrival)
        return arrival

    def _fail(self, archive: str, step: int | None, message: str, *, lasting: bool) -> None:
        failure = Failure(archive, step, message, lasting)
        self._failures.append(failure)
        self.watch.failed(failure)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
