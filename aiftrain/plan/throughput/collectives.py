"""Collectives on a machine's links: inside the node (or NVLink domain), across nodes, and both together."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aiftrain.plan.throughput.constants import Constants, Stack
from aiftrain.run.links import gather_seconds
from aiftrain.run.machine import Hardware

ASSUMED_NEAR = 64.0  # GB/s: the least that a node with several devices has, PCIe 5 with 16 lanes
ASSUMED_FAR = 12.5  # GB/s: what LUMI, Leonardo and Deucalion give a device, the least of Europe's large machines
_NEAR_HOP = 0.25  # a hop inside the node, of one across nodes


@dataclass(frozen=True, slots=True)
class Links:
    """Bytes a second, one device, one direction: `near` inside a domain of `domain` devices, `far` across."""

    domain: int
    near: float
    far: float
    hop: float

    @classmethod
    def of(cls, hardware: Hardware, nodes: int, constants: Constants, stack: Stack) -> Links:
        """The links as a job on `nodes` nodes has them, assumed where nobody documents them."""
        near = hardware.intra_node_gb_per_s or (ASSUMED_NEAR if hardware.devices_per_node > 1 else math.inf)
        far = hardware.inter_node_gb_per_s or (ASSUMED_FAR if nodes > 1 else math.inf)
        slower = constants.talks.get(stack.name, 1.0)
        return cls(
            domain=hardware.fast_domain or hardware.devices_per_node,
            near=near * 1e9 * constants.link_share / slower,
            far=far * 1e9 * constants.net_share * nodes**-constants.net_fall / slower,
            hop=constants.hop_seconds * slower,
        )

    def gather(self, size: float, group: int, stride: int = 1) -> float:
        """Seconds until `group` ranks, `stride` apart, all have `size` bytes of which each had a part.

        Reduce-scatter takes as long; all-reduce is both.
        """
        if group == 1:
            return 0.0
        inside = max(1, min(group, self.domain // stride))
        outside = math.ceil(group / inside)
        hops = (group - 1) * (1.0 if outside > 1 else _NEAR_HOP)
        return gather_seconds(size, group, inside, self.near, self.far) + self.hop * hops

    def exchange(self, size: float, group: int, choices: int | None = None) -> float:
        """Seconds of an all-to-all in which each of `group` ranks sends `size` bytes in all.

        With `choices` each token is sent to as many ranks at random, but to each domain only once.
        """
        if group == 1:
            return 0.0
        inside = max(1, min(group, self.domain))
        outside = group // inside
        near = size * (inside - 1) / inside / self.near
        copies = (outside - 1) / outside
        if choices:
            copies = (outside - 1) * (1 - (1 - 1 / outside) ** choices) / choices
        return max(near, size * copies / self.far) + self.hop * math.sqrt(group)

    def send(self, size: float, stride: int) -> float:
        """Seconds to hand `size` bytes to the rank `stride` further."""
        return size / (self.near if stride < self.domain else self.far) + self.hop


def overlapped(one: float, other: float, power: float) -> float:
    """Seconds of two things at the same time: (a^p + b^p)^(1/p)."""
    longer, shorter = max(one, other), min(one, other)
    return longer * (1 + (shorter / longer) ** power) ** (1 / power) if longer else 0.0
