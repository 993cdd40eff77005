"""Retention at home, which is also the spool: what an archive still lacks stays longer, but not at any price."""

from __future__ import annotations

import os
from dataclasses import dataclass

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.ledger import unshipped
from aiftrain.run.storage import StorageSpec


@dataclass(frozen=True)
class Removed:
    """A checkpoint that home has no more. `lacking`: an archive did not have it yet."""

    step: int
    lacking: bool


def retain(catalog: Catalog, storage: StorageSpec) -> list[Removed]:
    """Remove what `Catalog.retain` does, but the newest `keep_unshipped` that an archive lacks.

    Of these the oldest go too, one by one, where there is no room for another checkpoint as large as the newest.
    """
    owed = unshipped(catalog, [archive.address for archive in storage.archives])
    spared = owed[-storage.keep_unshipped :] if storage.keep_unshipped else []
    steps = catalog.retain(storage.keep_last, storage.keep_every, spared)
    while spared and not _has_room(catalog):
        spared = spared[1:]
        steps += catalog.retain(storage.keep_last, storage.keep_every, spared)
    return [Removed(step, step in owed) for step in sorted(steps)]


def _has_room(catalog: Catalog) -> bool:
    newest = catalog.latest()
    with machine_errors("read", catalog.folder):
        status = os.statvfs(catalog.folder)
    return newest is None or newest.manifest.size <= status.f_bavail * status.f_frsize
