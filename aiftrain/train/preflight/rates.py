"""Judges what the ranks measured: clocks, matrix products, and the links between nodes, against profile and peers."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from aiftrain.run.hostlist import ranks_by_host
from aiftrain.run.links import gather_seconds
from aiftrain.run.machine import Hardware
from aiftrain.train.preflight.finding import Finding

# GPUs of one kind differ by some per cent, hot ones by ten; every rank waits for the slowest. At half the rate of its
# peers a device is broken or throttled, and the job is better off without its node.
_SLOW, _BROKEN = 0.85, 0.5
# A node between busy switches may lose a third of its rate for a moment; at half, with each of its partners, it is
# the node.
_SLOW_LINK, _BROKEN_LINK = 0.7, 0.5
# Collectives of published runs reach 0.65 (links) and 0.75 (network) of the documented rate, less on many nodes:
# conf/throughput.yaml. Below this something else is used than the profile's network.
_OF_PROFILE = 0.3
_SKEW = 1.0  # seconds; a barrier lets ranks go within milliseconds, and files' times and logs stay in order


@dataclass(frozen=True)
class Measured:
    """What one rank measured. `all_reduce` and `pairs` in seconds; `clocks` in Unix seconds, after each barrier."""

    clocks: tuple[float, ...]
    matmul: float | None  # FLOP/s
    all_reduce: float
    pairs: tuple[tuple[int, float], ...] = ()  # (partner's rank, seconds)


@dataclass(frozen=True)
class Where:
    """Hosts in order of rank, the hardware, and how many bytes were sent."""

    hosts: Sequence[str]
    hardware: Hardware
    size: int

    @cached_property
    def nodes(self) -> dict[str, tuple[int, ...]]:
        """Host -> its ranks."""
        return ranks_by_host(self.hosts)


def judge_rates(measured: Sequence[Measured], where: Where) -> Iterator[Finding]:
    """`measured` in order of rank. CPU ranks share their cores with whatever else runs: their rates refuse nothing."""
    yield from _clocks(measured, where)
    yield from _matmul(measured, where)
    yield from _all_reduce(measured, where)
    yield from _links(measured, where)


def partners(hosts: Sequence[str]) -> list[list[int]]:
    """For each rank the ranks that it talks to in turn, one of another node each, so that every node has two partners.

    Nodes stand in a ring, and each rank talks to the one in its place on the node's neighbours. A round may leave
    a node out (-1): an odd ring takes three rounds.
    """
    nodes = list(ranks_by_host(hosts).values())
    rounds = [_partner_nodes(len(nodes), number) for number in range(_rounds(len(nodes)))]
    found: list[list[int]] = [[] for _ in hosts]
    for partner_of in rounds:
        for node, ranks in enumerate(nodes):
            other = nodes[partner_of[node]] if partner_of[node] >= 0 else ()
            for place, rank in enumerate(ranks):
                found[rank].append(other[place] if place < len(other) else -1)
    return found


def all_reduce_seconds(size: int, hosts: Sequence[str], hardware: Hardware) -> float | None:
    """What the profile's rates give, without latency; None where it does not say them."""
    world, on_node = len(hosts), hosts.count(hosts[0])
    inside = min(world, max(on_node, hardware.fast_domain or 1))
    near, far = hardware.intra_node_gb_per_s, hardware.inter_node_gb_per_s
    if (inside > 1 and near is None) or (world > inside and far is None):
        return None
    return 2 * gather_seconds(size, world, inside, (near or 1.0) * 1e9, (far or 1.0) * 1e9)


def _rounds(nodes: int) -> int:
    return nodes - 1 if nodes < 3 else 2 + nodes % 2


def _partner_nodes(nodes: int, number: int) -> list[int]:
    """The edges of a ring in colours: (0,1)(2,3)..., then (1,2)(3,4)..., and (last,0) where the first is taken."""
    partner = [-1] * nodes
    if number == 2:
        pairs = [(nodes - 1, 0)]
    else:
        pairs = [(one, (one + 1) % nodes) for one in range(number, nodes - 1 + number, 2)]
    for one, other in pairs:
        partner[one], partner[other] = other, one
    return partner


def _clocks(measured: Sequence[Measured], where: Where) -> Iterator[Finding]:
    """The smallest of a node's differences from rank 0: a rank may come late from a barrier, never early."""
    for host, ranks in where.nodes.items():
        differences = [
            own - first for rank in ranks for own, first in zip(measured[rank].clocks, measured[0].clocks, strict=True)
        ]
        skew = min(differences, key=abs)
        if abs(skew) > _SKEW:
            found = f"a clock {abs(skew):,.1f} s {'ahead of' if skew > 0 else 'behind'} rank 0's"
            yield Finding("clock", host, ranks, found, f"less than {_SKEW:.0f} s")


def _matmul(measured: Sequence[Measured], where: Where) -> Iterator[Finding]:
    rates = [each.matmul for each in measured]
    if where.hardware.is_cpu or len(rates) < 2:  # CPU ranks that share a node share its cores
        return
    usual = statistics.median(rate for rate in rates if rate is not None) if None not in rates else 0.0
    for rank, rate in enumerate(rates):
        if rate is not None and rate < _SLOW * usual:
            found, expected = f"{rate / 1e12:,.0f} TFLOP/s", f"about {usual / 1e12:,.0f} TFLOP/s, as elsewhere,"
            refuses = rate < _BROKEN * usual and len(where.nodes) > 1
            yield Finding("matrix products", where.hosts[rank], (rank,), found, expected, refuses)


def _all_reduce(measured: Sequence[Measured], where: Where) -> Iterator[Finding]:
    expected = all_reduce_seconds(where.size, where.hosts, where.hardware)
    seconds = min(each.all_reduce for each in measured)  # all ranks are in it together; the others came late
    if expected and seconds > expected / _OF_PROFILE:
        found = f"all-reduce of all ranks at {_rate(where.size, seconds)}"
        profile = f"up to {_rate(where.size, expected)}, as the profile {where.hardware.name} has it,"
        yield Finding("all-reduce", where.hosts[0], tuple(range(len(measured))), found, profile)


def _links(measured: Sequence[Measured], where: Where) -> Iterator[Finding]:
    """A node is judged by the better of its partners: one slow partner is the partner's fault."""
    best = {host: _best_rate(measured, ranks, where.size) for host, ranks in where.nodes.items()}
    known = {host: rate for host, rate in best.items() if rate is not None}
    yield from _slow_nodes(known, where)
    yield from _below_profile(known, where)


def _slow_nodes(rates: Mapping[str, float], where: Where) -> Iterator[Finding]:
    """Two nodes have but each other, and cannot tell which is slow."""
    if len(rates) < 3:
        return
    usual = statistics.median(rates.values())
    slow = _BROKEN_LINK if where.hardware.is_cpu else _SLOW_LINK
    for host, rate in rates.items():
        if rate < slow * usual:
            expected = f"about {usual / 1e9:,.1f} GB/s a rank, as elsewhere,"
            found = f"{rate / 1e9:,.1f} GB/s a rank to each of two other nodes"
            refuses = rate < _BROKEN_LINK * usual and not where.hardware.is_cpu
            yield Finding("links", host, where.nodes[host], found, expected, refuses)


def _below_profile(rates: Mapping[str, float], where: Where) -> Iterator[Finding]:
    profile = where.hardware.inter_node_gb_per_s
    if profile and rates and statistics.median(rates.values()) < _OF_PROFILE * profile * 1e9:
        usual = statistics.median(rates.values()) / 1e9
        found = f"{usual:,.1f} GB/s a rank between nodes"
        expected = f"up to {profile:g}, as the profile {where.hardware.name} has it,"
        yield Finding("links", where.hosts[0], tuple(range(len(where.hosts))), found, expected)


def _best_rate(measured: Sequence[Measured], ranks: Sequence[int], size: int) -> float | None:
    """Bytes a second of the slowest of a node's ranks, with the node's better partner; None where it had none."""
    rounds: dict[int, list[float]] = {}
    for rank in ranks:
        for number, (partner, seconds) in enumerate(measured[rank].pairs):
            if partner >= 0:
                rounds.setdefault(number, []).append(seconds)
    return max((size / max(seconds) for seconds in rounds.values()), default=None)


def _rate(size: int, seconds: float) -> str:
    return f"{size / seconds / 1e9:,.1f} GB/s"
