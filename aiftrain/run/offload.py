"""What a run whose optimizer is on a disk of each node (`nvme`) needs of that disk."""

from __future__ import annotations

from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec


def disk_bytes(spec: RunSpec, layout: ParallelLayout) -> int:
    """At most about so many, of all ranks of a node together.

    Of each parameter that a rank holds the fp32 weight, its gradient and what the optimizer keeps, 4 bytes each.
    """
    each = 4 * (2 + max(len(group.states) for group in spec.optimizer.groups))
    return each * spec.model.parameters * layout.ranks_per_node // layout.sharers
