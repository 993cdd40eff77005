"""From the address of a place to a store that is open."""

from __future__ import annotations

from pathlib import Path

from aiftrain.checkpoint.stores.base import Store
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.run.storage import ArchiveSpec


def open_store(spec: ArchiveSpec) -> Store:
    """The store that `spec` names. MachineError where it is out of reach, UserError where it may not be used."""
    return FolderStore(Path(spec.address))
