"""A shipper between folders, and who looks on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.copying import copy
from aiftrain.checkpoint.ledger import Arrival
from aiftrain.checkpoint.progress import Progress, unwatched
from aiftrain.checkpoint.saved import saved_at_home
from aiftrain.checkpoint.ship import Destination, Failure, Shipper
from aiftrain.checkpoint.stores.folder import FolderStore
from tests.checkpoint.conftest import LINEAGE


class Watched:
    """Remembers what the shipper tells."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.signatures: list[Arrival] = []
        self.failures: list[Failure] = []
        self.before: dict[int, Callable[[], object]] = {}  # what happens at the beginning of the n-th journey
        self._journeys = 0

    def begins(self, checkpoint: Checkpoint, archive: str) -> None:
        self._journeys += 1
        if event := self.before.get(self._journeys):
            event()

    def progress(self, size: int) -> None:
        pass

    def arrived(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)

    def signed(self, arrival: Arrival) -> None:
        self.signatures.append(arrival)

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    @property
    def path(self) -> list[tuple[int, str]]:
        return [(arrival.step, Path(arrival.archive).name) for arrival in self.arrivals]


def carry(checkpoint: Checkpoint, archive: Archive, progress: Progress = unwatched) -> int:
    """As the shipper does."""
    return copy(saved_at_home(checkpoint), archive, progress)


def at(place: Path) -> Archive:
    return Archive(FolderStore(place), LINEAGE)


def shipper(catalog: Catalog, places: list[Path], watch: Watched) -> Shipper:
    return Shipper(catalog, [Destination(str(place), partial(at, place)) for place in places], watch)
