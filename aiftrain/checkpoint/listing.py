"""What `checkpoints list` and `checkpoints verify` say, as plain values for the command line to print."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.verify import Fault
from aiftrain.errors import DamagedError, UserError


@dataclass(frozen=True)
class Summary:
    """One folder of the catalog. `tokens` and `time` (unix seconds) are known of complete checkpoints only."""

    step: int
    status: Literal["complete", "incomplete", "damaged"]
    size: int  # bytes on disk
    tokens: int | None = None
    time: float | None = None
    message: str = ""


@dataclass(frozen=True)
class Verification:
    """What reading one checkpoint again found; no faults: it is what was written."""

    step: int
    size: int  # bytes on disk
    faults: tuple[Fault, ...]


def summaries(catalog: Catalog) -> list[Summary]:
    """One line for each step in the catalog, oldest first. Reads manifests and sizes, no shard."""
    return [_summary(catalog, step) for step in catalog.steps()]


def verify(catalog: Catalog, step: int | None = None) -> list[Verification]:
    """Read one checkpoint, or all that have a manifest, in full. UserError where there is nothing to read."""
    if step is not None:
        return [_verification(catalog, step)]
    steps = [summary.step for summary in summaries(catalog) if summary.status != "incomplete"]
    if not steps:
        raise UserError(f"{catalog.folder} has no checkpoint to verify")
    return [_verification(catalog, step) for step in steps]


def _summary(catalog: Catalog, step: int) -> Summary:
    size = _size_on_disk(catalog, step)
    try:
        entry = catalog.read(step)
    except DamagedError as error:
        return Summary(step, "damaged", size, message=str(error))
    if entry is None:
        return Summary(step, "incomplete", size)
    return Summary(step, "complete", size, entry.manifest.tokens, entry.manifest.time)


def _verification(catalog: Catalog, step: int) -> Verification:
    faults = catalog.verify(step)
    return Verification(step, _size_on_disk(catalog, step), tuple(faults))


def _size_on_disk(catalog: Catalog, step: int) -> int:
    size = 0
    for path in catalog.step_folder(step).glob("*"):
        with machine_errors("read", path), contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size  # a run that is saving may remove it at this very moment
    return size
