"""Messages between ranks by size: collectives inside nodes, across them and over all ranks, and exchanges of two."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from aiftrain.run.bench import Missing, Transfer
from aiftrain.run.hostlist import ranks_by_host
from aiftrain.train.bench.pace import LEAST_CALLS, Setting, time_of
from aiftrain.train.preflight.links import exchange
from aiftrain.train.preflight.rates import partners

Action = Callable[[], object]
Prepare = Callable[[int], tuple[Action, int]]  # a message's bytes -> the call, and the bytes that it really has

_SIZES = {"cpu": [2**10 * 8**power for power in range(6)], "cuda": [2**10 * 8**power for power in range(7)]}
_GROWTH = 8

# Newer names, which torch 2.9 lacks, are told of at every call.
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")


@dataclass(frozen=True)
class Scope:
    """Ranks that talk to each other. `group` is that of this rank, None where it sits out; all groups talk at once."""

    name: str
    ranks: int
    group: dist.ProcessGroup | None


def transfers(setting: Setting, budget: float) -> Iterator[Transfer | Missing]:
    """Every operation in every scope, from small messages to large; `budget` in seconds."""
    found = scopes(setting.hosts)
    if not found:
        yield Missing(what="links between ranks", why="there is one rank: launcher.ranks_per_node=2, or nodes=2")
        return
    works = [(scope, name) for scope in found for name in _COLLECTIVES]
    pairs = exchange_partners(setting.hosts)
    each = budget / (len(works) + len(pairs))
    for scope, name in works:
        yield from _collective(setting, scope, name, each)
    for where, of_ranks in pairs.items():
        yield from _exchanges(setting, where, of_ranks[setting.rank], each)


def scopes(hosts: Sequence[str]) -> list[Scope]:
    """Inside a node, across nodes, and all ranks, as far as there are several ranks in them and they differ."""
    nodes = list(ranks_by_host(hosts).values())
    least = min(map(len, nodes))
    found = []
    if least > 1:
        found.append(Scope("inside a node", least, _group([ranks[:least] for ranks in nodes])))
    if len(nodes) > 1:
        across = [tuple(ranks[place] for ranks in nodes) for place in range(least)]
        found.append(Scope("across nodes", len(nodes), _group(across)))
    if least > 1 and len(nodes) > 1:
        found.append(Scope("all ranks", len(hosts), dist.group.WORLD))
    return found


def exchange_partners(hosts: Sequence[str]) -> dict[str, list[int]]:
    """Where -> for each rank the one that it talks to, -1 for none: its neighbour on the node, its like on another."""
    found = {}
    nodes = list(ranks_by_host(hosts).values())
    if max(map(len, nodes)) > 1:
        found["inside a node"] = _neighbours(nodes, len(hosts))
    if len(nodes) > 1:
        found["across nodes"] = [of_rank[0] for of_rank in partners(hosts)]
    return found


def link_bytes(operation: str, ranks: int, size: int) -> float:
    """What each rank's link carries in one direction for a message of `size` bytes (nccl-tests, PERFORMANCE.md)."""
    times = {"all-reduce": 2.0 * (ranks - 1) / ranks, "exchange": 1.0}
    return size * times.get(operation, (ranks - 1) / ranks)


def _neighbours(nodes: Sequence[Sequence[int]], world: int) -> list[int]:
    """The first and second rank of a node are partners, the third and fourth, and so on."""
    found = [-1] * world
    for ranks in nodes:
        for one, other in zip(ranks[::2], ranks[1::2], strict=False):
            found[one], found[other] = other, one
    return found


def _group(all_ranks: Sequence[Sequence[int]]) -> dist.ProcessGroup | None:
    """This rank's of several groups; every rank has to make all of them."""
    mine = None
    for ranks in all_ranks:
        group = dist.new_group(list(ranks))
        if dist.get_rank() in ranks:
            mine = group
    return mine


def _collective(setting: Setting, scope: Scope, operation: str, budget: float) -> Iterator[Transfer | Missing]:
    def prepare(size: int) -> tuple[Action, int]:
        elements = -(-size // (4 * scope.ranks))  # of each rank's part
        action = _COLLECTIVES[operation](elements, scope, setting.device)
        return action if scope.group is not None else _nothing, 4 * elements * scope.ranks

    yield from _by_size(setting, scope.name, scope.ranks, operation, prepare, budget)


def _exchanges(setting: Setting, where: str, partner: int, budget: float) -> Iterator[Transfer | Missing]:
    def prepare(size: int) -> tuple[Action, int]:
        sent, got = (torch.zeros(size // 4, device=setting.device) for _ in range(2))
        return (lambda: exchange(sent, got, partner)) if partner >= 0 else _nothing, size

    yield from _by_size(setting, where, 2, "exchange", prepare, budget)


def _by_size(
    setting: Setting, where: str, ranks: int, operation: str, prepare: Prepare, budget: float
) -> Iterator[Transfer | Missing]:
    """From the smallest message on, until the next would take more than half of the time for all."""
    sizes = _SIZES[setting.device.type]
    for size in sizes:
        action, octets = prepare(size)
        timing = time_of(action, setting.device, budget / len(sizes))
        yield Transfer(
            operation=operation,
            scope=where,
            ranks=ranks,
            bytes=octets,
            seconds=timing.slowest,
            gb_per_s=link_bytes(operation, ranks, octets) / timing.slowest / 1e9,
            repetitions=timing.calls,
        )
        expected = LEAST_CALLS * _GROWTH * timing.slowest
        if expected > budget / 2 and size != sizes[-1]:
            why = f"it would take about {expected:,.2g} s"
            yield Missing(what=f"{operation} {where} of more than {octets:,} bytes", why=why)
            return


def _nothing() -> None:
    """What a rank does that sits out."""


def _all_reduce(elements: int, scope: Scope, device: torch.device) -> Action:
    load = torch.zeros(elements * scope.ranks, device=device)
    return lambda: dist.all_reduce(load, group=scope.group)


def _all_gather(elements: int, scope: Scope, device: torch.device) -> Action:
    part, whole = torch.zeros(elements, device=device), torch.zeros(elements * scope.ranks, device=device)
    return lambda: dist.all_gather_into_tensor(whole, part, group=scope.group)


def _reduce_scatter(elements: int, scope: Scope, device: torch.device) -> Action:
    part, whole = torch.zeros(elements, device=device), torch.zeros(elements * scope.ranks, device=device)
    return lambda: dist.reduce_scatter_tensor(part, whole, group=scope.group)


def _all_to_all(elements: int, scope: Scope, device: torch.device) -> Action:
    sent, got = (torch.zeros(elements * scope.ranks, device=device) for _ in range(2))
    return lambda: dist.all_to_all_single(got, sent, group=scope.group)


_COLLECTIVES: dict[str, Callable[[int, Scope, torch.device], Action]] = {
    "all-reduce": _all_reduce,
    "all-gather": _all_gather,
    "reduce-scatter": _reduce_scatter,
    "all-to-all": _all_to_all,
}
