"""shipped.json beside the checkpoints of home: what has arrived where.

Only a note: what an archive has, the archive is asked. Retention looks here, so that what nobody has a copy of yet
stays a while (`unshipped`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.run.base import Strict
from aiftrain.run.durable import replace_text
from aiftrain.run.folder import RunFolder

FORMAT = 1
NAME = "shipped.json"


class Arrival(Strict):
    """A checkpoint that arrived: `time` in unix seconds, `size` and `sent` in bytes, `digest` its manifest's.

    `signature`: the SHA-256 of the signature that it has there, where the shipper brought one.

    Of `size` bytes, `sent` were sent by the process that made it complete; it has read all of them back.
    """

    step: int
    digest: str
    archive: str
    time: float
    size: int
    sent: int
    signature: str | None = None


class _Document(Strict):
    format: int = FORMAT
    arrivals: tuple[Arrival, ...] = ()


class Ledger:
    """The arrivals noted in a home. One that cannot be read is an empty one: the archives know."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / NAME
        self.arrivals = self._read()

    def has(self, manifest: Manifest, archive: str) -> bool:
        return self.find(manifest, archive) is not None

    def find(self, manifest: Manifest, archive: str) -> Arrival | None:
        key = (manifest.step, manifest.digest, archive)
        return next((each for each in self.arrivals if (each.step, each.digest, each.archive) == key), None)

    def add(self, arrival: Arrival) -> None:
        """In place of what was noted of that step and archive."""
        others = (each for each in self.arrivals if (each.step, each.archive) != (arrival.step, arrival.archive))
        self.arrivals = (*others, arrival)
        document = _Document(arrivals=self.arrivals).model_dump(mode="json")
        with machine_errors("write", self._file):
            replace_text(self._file, json.dumps(document, indent=2) + "\n")

    def _read(self) -> tuple[Arrival, ...]:
        with machine_errors("read", self._file):
            try:
                return _Document.model_validate_json(self._file.read_bytes()).arrivals
            except (FileNotFoundError, ValidationError):
                return ()


def unshipped(catalog: Catalog, archives: Iterable[str]) -> list[int]:
    """The steps of home that not every one of `archives` (their addresses) is known to have, in ascending order."""
    ledger, wanted = Ledger(catalog.folder), list(archives)
    entries = catalog.entries() if wanted else []
    return [e.step for e in entries if not all(ledger.has(e.manifest, archive) for archive in wanted)]


def unshipped_by(folder: RunFolder) -> list[int]:
    """The steps that a run has at home and not yet in all of its archives, in ascending order."""
    spec = folder.read_spec()
    return unshipped(Catalog.of_run(folder, spec), [archive.address for archive in spec.storage.archives])
