"""The copy of the state that nodes hold for saving beside the training, and whether it finds room there."""

from __future__ import annotations

from aiftrain.plan.memory import GIB, checkpoint_bytes, host_bytes
from aiftrain.plan.memory_use import MemoryUse
from aiftrain.run.base import Strict
from aiftrain.run.layout import ranks_per_node
from aiftrain.run.memory import MAY_TAKE
from aiftrain.run.spec import Precision, RunSpec


class StateCopy(Strict):
    """Bytes on each node. `left`: of its memory beside what training takes; None where nobody documents it."""

    size: int
    left: int | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Training goes on without a copy, but not as fast: see checkpoint/background.py."""
        if self.left is None or self.size <= self.left * MAY_TAKE:
            return ()
        found = f"the copy of the state takes {self.size / GIB:,.1f} GiB of a node that has {self.left / GIB:,.1f} left"
        return (f"{found}: training will wait while checkpoints are written; more nodes share it out",)


def state_copy(spec: RunSpec, use: MemoryUse, precision: Precision) -> StateCopy | None:
    """None where no copy is made. Ranks' parts of a checkpoint are taken to be of one size."""
    if not spec.storage.background:
        return None
    hardware = spec.hardware
    of_rank = use.total if hardware.is_cpu else host_bytes(spec, precision)
    memory = hardware.node_memory_gib
    left = None if memory is None else max(0, int(memory * GIB) - of_rank * ranks_per_node(spec))
    return StateCopy(size=-(-checkpoint_bytes(spec) // spec.nodes), left=left)
