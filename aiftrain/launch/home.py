"""The folder that a job's ranks will write checkpoints to, made ready where that is of use: on Lustre."""

from __future__ import annotations

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.stores.filesystem import make_striped
from aiftrain.plan.memory import checkpoint_bytes
from aiftrain.run.folder import RunFolder
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec


def make_home(spec: RunSpec, layout: ParallelLayout, folder: RunFolder) -> str | None:
    """What was done for a home that is new, in words; None where it is left to the ranks.

    Done on the login node: containers on compute nodes have no `lfs`. MachineError where the folder cannot be made.
    """
    home = Catalog.of_run(folder, spec).folder
    if home.exists():
        return None
    with machine_errors("create", home):
        count = make_striped(home, checkpoint_bytes(spec) // layout.world_size)
    return None if count is None else f"{home} is on Lustre: each file in it gets a stripe count of {count}"
