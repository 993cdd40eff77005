"""Fetching: what an archive has and home lacks comes home before a run resumes, each rank bringing its share.

The newest checkpoint counts, wherever it is. One that an archive is known to have and that cannot be fetched ends the
start: nothing is trained a second time because a network failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import TypeVar

from aiftrain.checkpoint.archive import Archive, Archived, Contents, open_contents
from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.fetch import Fetch, forget_others
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.checkpoint.rollbacks import read_rollbacks, went_back_from, write_rollbacks
from aiftrain.checkpoint.saved import saved_away
from aiftrain.checkpoint.sealing.envelope import Envelope
from aiftrain.checkpoint.sealing.stored import SealedCheckpoint
from aiftrain.checkpoint.ship import open_archive
from aiftrain.checkpoint.signing.signers import Signers
from aiftrain.errors import AiftrainError, DamagedError, MachineError, UserError
from aiftrain.run.rank import Rank
from aiftrain.run.spec import RunSpec
from aiftrain.run.storage import ArchiveSpec
from aiftrain.train.together import on_first, together
from aiftrain.train.tracking import Tracker

T = TypeVar("T")
_SLICE = 60.0  # seconds between two meetings of the ranks, which otherwise take each other for lost


@dataclass(frozen=True)
class _Found:
    archive: ArchiveSpec
    commit: Manifest | Envelope

    @property
    def step(self) -> int:
        return self.commit.step


class Fetcher:
    """The archives of a run, as one of its ranks sees them. Every rank calls every method; rank 0 decides."""

    def __init__(self, spec: RunSpec, catalog: Catalog, rank: Rank, tracker: Tracker) -> None:
        self._spec = spec
        self._network = spec.storage.ship == "during"  # else only folders are within the reach of ranks
        self._archives = [each for each in spec.storage.archives if self._network or each.is_folder]
        self._catalog = catalog
        self._rank = rank
        self._tracker = tracker
        self._out_of_reach: dict[str, AiftrainError] = {}  # by address
        self._tried: set[tuple[str, int]] = set()  # addresses and steps: nothing is fetched twice

    def hear_rollbacks(self) -> None:
        """Have home know where the run went back, though it did so on another machine."""
        if self._archives:
            on_first(self._hear_rollbacks)

    def fetch_newer(self, at_most: int | None = None) -> None:
        """Bring home the newest checkpoint, up to step `at_most`, where home has none as new.

        MachineError where one is known and no archive that has it gives it.
        """
        lost: tuple[int, MachineError] | None = None
        while self._archives and (found := on_first(partial(self._newest, at_most))):
            if lost and found.step < lost[0]:
                break
            try:
                self._fetch(found)
                return
            except DamagedError as error:
                self._tell_failure(found, error)
            except MachineError as error:
                lost = found.step, error
                self._tell_failure(found, error)
        if lost:
            raise lost[1]

    def tidy(self) -> None:
        """Remove what interrupted fetches left; nobody goes on with them now."""
        if self._archives:
            on_first(lambda: forget_others(self._catalog))

    def refuse_to_begin(self) -> None:
        """Raise what speaks against an archive that may have checkpoints, home having none.

        MachineError where it is out of reach, UserError where the run may not use it: wrong keys, say.
        """
        on_first(self._refuse_to_begin)

    def _refuse_to_begin(self) -> None:
        for address, error in self._out_of_reach.items() if self._network else ():
            raise (UserError if isinstance(error, UserError) else MachineError)(
                f"{self._catalog.folder} has no checkpoint, and nobody knows whether {address} has one of this run: "
                f"{error}. Make it reachable, or leave it out of storage.archives"
            )

    def _hear_rollbacks(self) -> None:
        for spec in self._archives:
            known, heard = read_rollbacks(self._catalog), self._ask(spec, Archive.rollbacks) or ()
            if len(heard) > len(known) and heard[: len(known)] == known:
                with machine_errors("create", self._catalog.folder):
                    self._catalog.folder.mkdir(parents=True, exist_ok=True)
                write_rollbacks(self._catalog, heard)

    def _newest(self, at_most: int | None) -> _Found | None:
        """The newest checkpoint of all archives that is newer than home's, and was not tried yet."""
        newest = max((e.step for e in self._catalog.entries() if at_most is None or e.step <= at_most), default=-1)
        answers = (self._ask(spec, partial(self._newest_of, spec, newest, at_most)) for spec in self._archives)
        best = max(filter(None, answers), key=attrgetter("step"), default=None)
        if best is not None:
            self._tried.add((best.archive.address, best.step))
        return best

    def _newest_of(self, spec: ArchiveSpec, above: int, at_most: int | None, archive: Archive) -> _Found | None:
        rollbacks = read_rollbacks(self._catalog)
        for step in reversed(archive.steps()):
            if step <= above:
                break
            if (at_most is not None and step > at_most) or (spec.address, step) in self._tried:
                continue
            try:
                entry = archive.read(step)
            except DamagedError as error:
                self._tried.add((spec.address, step))
                self._tracker.event("archive damaged", step=step, archive=spec.address, message=str(error))
                continue
            if entry is None or (isinstance(entry, Archived) and entry.manifest.holds):
                continue
            if not went_back_from(step, entry.rollbacks, rollbacks):
                return _Found(spec, entry.manifest if isinstance(entry, Archived) else entry.envelope)
        return None

    def _ask(self, spec: ArchiveSpec, question: Callable[[Archive], T]) -> T | None:
        """What an archive answers; None where it is out of reach, which is told once.

        So it is where its keys are wrong, or have ended since: a run that has a checkpoint at home goes on.
        """
        try:
            answer = question(open_archive(spec, self._spec))
        except (MachineError, UserError) as error:
            if spec.address not in self._out_of_reach:
                self._tracker.event("archive out of reach", archive=spec.address, message=str(error))
            self._out_of_reach[spec.address] = error
            return None
        self._out_of_reach.pop(spec.address, None)
        return answer

    def _fetch(self, found: _Found) -> None:
        started = time.monotonic()
        manifest = on_first(lambda: self._begin(found))
        work = self._share(found, manifest)
        while any(together(lambda: _advance(work, _SLICE))):
            pass
        on_first(lambda: Fetch(self._contents(found, manifest), self._catalog).finish())
        size, seconds = manifest.size, round(time.monotonic() - started, 3)
        self._tracker.event("fetched", step=found.step, archive=found.archive.address, bytes=size, seconds=seconds)

    def _begin(self, found: _Found) -> Manifest:
        contents = self._contents(found)
        Signers.of(self._spec.policy).check(saved_away(contents), self._catalog.committed)
        if damage := Fetch(contents, self._catalog).begin():
            self._tracker.event("custody damaged", message=damage)
        return contents.manifest

    def _share(self, found: _Found, manifest: Manifest) -> Iterator[None]:
        """This rank's part of the work, in small pieces."""
        fetch = Fetch(self._contents(found, manifest), self._catalog)
        yield from fetch.files(manifest.files[self._rank.rank :: self._rank.world_size])

    def _contents(self, found: _Found, manifest: Manifest | None = None) -> Contents:
        archive = open_archive(found.archive, self._spec)
        if isinstance(found.commit, Envelope):
            return open_contents(SealedCheckpoint(archive.store, found.commit), manifest)
        return Archived(archive.store, archive.place(found.step), found.commit)

    def _tell_failure(self, found: _Found, error: MachineError) -> None:
        self._tracker.event("fetch failed", step=found.step, archive=found.archive.address, message=str(error))


def _advance(work: Iterator[None], seconds: float) -> bool:
    """Go on with `work` for a while; whether there is more to do."""
    deadline = time.monotonic() + seconds
    return any(time.monotonic() > deadline for _ in work)
