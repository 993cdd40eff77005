"""What `checkpoints list` and `checkpoints verify` say, as plain values for the command line to print."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from aiftrain.checkpoint.catalog import Catalog, NoCheckpointError
from aiftrain.checkpoint.custody import NAME as CUSTODY
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.checkpoint.progress import Progress, unwatched
from aiftrain.checkpoint.saved import saved_at_home
from aiftrain.checkpoint.signing.checkpoint import signature_faults
from aiftrain.checkpoint.signing.keys import PublicKey
from aiftrain.checkpoint.verify import Fault
from aiftrain.errors import DamagedError

Watch = Callable[[int, int], Progress]  # is told the step and the bytes of what is to be read; who hears of its blocks


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


def verify(
    catalog: Catalog, step: int | None = None, signer: PublicKey | None = None, watch: Watch = lambda *_: unwatched
) -> list[Verification]:
    """Read one checkpoint, or all that have a manifest, in full. NoCheckpointError where there is nothing to read.

    Of all, those that the run removes meanwhile are left out. With `signer`, a checkpoint that is not signed with its
    key is at fault as well. `watch` is told of each.
    """
    if step is not None:
        return [_verification(catalog, step, signer, watch)]
    found = list[Verification]()
    for step in [summary.step for summary in summaries(catalog) if summary.status != "incomplete"]:
        with contextlib.suppress(NoCheckpointError):
            found.append(_verification(catalog, step, signer, watch))
    if not found:
        raise NoCheckpointError(f"{catalog.folder} has no checkpoint to verify")
    return found


def _summary(catalog: Catalog, step: int) -> Summary:
    size = _size_on_disk(catalog, step)
    try:
        entry = catalog.read(step)
    except DamagedError as error:
        return Summary(step, "damaged", size, message=str(error))
    if entry is None:
        return Summary(step, "incomplete", size)
    return Summary(step, "complete", size, entry.manifest.tokens, entry.manifest.time, kind(entry.manifest))


def kind(manifest: Manifest) -> str:
    """What is special about a checkpoint, in words; empty: nothing is."""
    return "complete, weights only" if manifest.holds else ""


def _verification(catalog: Catalog, step: int, signer: PublicKey | None, watch: Watch) -> Verification:
    size = _size_on_disk(catalog, step)
    damage = catalog.verify(step, watch(step, size))
    unsigned = _unsigned(catalog, step, signer) if signer else []
    return Verification(step, size, (*unsigned, *_unaccounted(catalog, step), *damage))


def _unaccounted(catalog: Catalog, step: int) -> list[Fault]:
    """A run goes on without its custody, and begins another one; who verifies has to hear that it was lost."""
    with contextlib.suppress(DamagedError):  # `Catalog.verify` says what is wrong
        if catalog.find(step).manifest.parent and not catalog.custody.lines():
            return [Fault(CUSTODY, "lost: this checkpoint goes on from another one, and was recorded with it")]
    return []


def _unsigned(catalog: Catalog, step: int, signer: PublicKey) -> list[Fault]:
    try:
        return signature_faults(saved_at_home(catalog.find(step)), [signer])
    except DamagedError:  # the manifest: `Catalog.verify` says what is wrong with it
        return []


def _size_on_disk(catalog: Catalog, step: int) -> int:
    size = 0
    for path in catalog.step_folder(step).glob("*"):
        with machine_errors("read", path), contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size  # a run that is saving may remove it at this very moment
    return size
