"""From the address of a place to a store that is open."""

from __future__ import annotations

from pathlib import Path

from aiftrain.checkpoint.stores.base import Store
from aiftrain.checkpoint.stores.bucket import open_bucket
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.checkpoint.stores.gate import Gate
from aiftrain.run.storage import ArchiveSpec


def open_store(spec: ArchiveSpec, gate: Gate | None = None) -> Store:
    """The store that `spec` names, reached through `gate`; without one no redirect is followed.

    MachineError where it is out of reach, UserError where it may not be used.
    """
    return FolderStore(Path(spec.address)) if spec.is_folder else open_bucket(spec, gate)
