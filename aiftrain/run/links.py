"""How long collectives take on a machine's links: the arithmetic that the planner and the checks at the start share."""

from __future__ import annotations

import math


def gather_seconds(size: float, group: int, inside: int, near: float, far: float) -> float:
    """Seconds until `group` ranks all have `size` bytes, of which each had a part; without latency.

    `inside` of them, at a time, share a node or NVLink domain. A ring inside the domain, and across domains all its
    members' network cards at once; the slower of the two decides. `near` and `far`: bytes a second, one device, one
    direction. Reduce-scatter takes as long; all-reduce is both.
    """
    if group == 1:
        return 0.0
    moved = size * (1 - 1 / group)
    in_ring = moved / near if inside > 1 else 0.0
    across = moved / (inside * far) if math.ceil(group / inside) > 1 else 0.0
    return max(in_ring, across)
