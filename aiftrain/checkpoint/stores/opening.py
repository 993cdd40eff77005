"""From the address of a place to a store that is open."""

from __future__ import annotations

from pathlib import Path

from aiftrain.checkpoint.stores.base import Store
from aiftrain.checkpoint.stores.bucket import open_bucket
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.checkpoint.stores.policy_gate import PolicyGate
from aiftrain.run.egress import installed
from aiftrain.run.residency import archive_hosts
from aiftrain.run.spec import RunSpec
from aiftrain.run.storage import ArchiveSpec


def open_store(archive: ArchiveSpec, run: RunSpec) -> Store:
    """The store that an archive of `run` is in.

    MachineError where it is out of reach; UserError where the run's policy, its keys or its address do not allow it.
    """
    if archive.is_folder:
        return FolderStore(Path(archive.address))
    gate = PolicyGate(archive, run)
    if guard := installed():  # of a process that did not know of this archive when its door was opened
        guard.allow(archive_hosts([archive]))
    return open_bucket(archive, gate)
