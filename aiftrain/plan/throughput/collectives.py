"""Collectives on a machine's links: inside the node (or NVLink domain), across nodes, and both together."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aiftrain.plan.throughput.constants import Constants, Stack
from aiftrain.run.links import gather_seconds
from aiftrain.run.machine import Hardware

ASSUMED_NEAR = 64.0  # GB/s: the least that a node with several devices has, PCIe 5 with 16 lanes
ASSUMED_FAR = 12.5  # GB/s: what LUMI, Leonardo and Deucalion give a device, the least of Europe's large machines
_NEAR_HOP = 0.25  # a hop inside the node, of one across nodes, where nobody measured it


@dataclass(frozen=True, slots=True)
class Links:
    """Bytes a second, one device, one direction: `near` inside a domain of `domain` devices, `far` across.

    `hop` and `near_hop`: seconds from one rank to the next.
    """

    domain: int
    near: float
    far: float
    hop: float
    near_hop: float

    @classmethod
    def of(cls, hardware: Hardware, nodes: int, constants: Constants, stack: Stack) -> Links:
        """The links as a job on `nodes` nodes has them, assumed where nobody documents them."""
        near = hardware.intra_node_gb_per_s or (ASSUMED_NEAR if hardware.devices_per_node > 1 else math.inf)
        far = hardware.inter_node_gb_per_s or (ASSUMED_FAR if nodes > 1 else math.inf)
        slower = constants.talks.get(stack.name, 1.0)
        hop, near_hop = _hops(hardware, constants)
        return cls(
            domain=hardware.fast_domain or hardware.devices_per_node,
            near=near * 1e9 * constants.link_share / slower,
            far=far * 1e9 * constants.net_share * nodes**-constants.net_fall / slower,
            hop=hop * slower,
            near_hop=near_hop * slower,
        )

    def gather(self, size: float, group: int, stride: int = 1) -> float:
        """Seconds until `group` ranks, `stride` apart, all have `size` bytes of which each had a part.

        Reduce-scatter takes as long; all-reduce is both.
        """
        if group == 1:
            return 0.0
        inside = max(1, min(group, self.domain // stride))
        outside = math.ceil(group / inside)
        hop = self.hop if outside > 1 else self.near_hop
        return gather_seconds(size, group, inside, self.near, self.far) + hop * (group - 1)

    def exchange(self, size: float, group: int, choices: int | None = None, stride: int = 1) -> float:
        """Seconds of an all-to-all in which each of `group` ranks, `stride` apart, sends `size` bytes in all.

        With `choices` each token is sent to as many ranks at random, but to each domain only once.
        """
        if group == 1:
            return 0.0
        inside = max(1, min(group, self.domain // stride))
        outside = group // inside
        near = size * (inside - 1) / inside / self.near
        copies = (outside - 1) / outside
        if choices:
            copies = (outside - 1) * (1 - (1 - 1 / outside) ** choices) / choices
        return max(near, size * copies / self.far) + self.hop * math.sqrt(group)

    def send(self, size: float, stride: int) -> float:
        """Seconds to hand `size` bytes to the rank `stride` further."""
        return size / (self.near if stride < self.domain else self.far) + self.hop


def _hops(hardware: Hardware, constants: Constants) -> tuple[float, float]:
    """Seconds of a hop across nodes and of one inside: measured, or else by that of published runs."""
    far, near = hardware.inter_node_us, hardware.intra_node_us
    hop = constants.hop_seconds if far is None else far * 1e-6
    return hop, _NEAR_HOP * hop if near is None else near * 1e-6


def overlapped(one: float, other: float, power: float) -> float:
    """Seconds of two things at the same time: (a^p + b^p)^(1/p)."""
    longer, shorter = max(one, other), min(one, other)
    return longer * (1 + (shorter / longer) ** power) ** (1 / power) if longer else 0.0
