"""Judges the network of a node: are the interfaces and cards that NCCL, gloo and the profile name there, and up?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from aiftrain.run.spec import RunSpec
from aiftrain.train.preflight.finding import Finding
from aiftrain.train.preflight.nodes import by_host
from aiftrain.train.preflight.survey import Sight

_USABLE = ("up", "unknown", "ACTIVE")  # of a loopback device the kernel says that it does not know


def judge_network(sights: Sequence[Sight], spec: RunSpec) -> Iterator[Finding]:
    """Of each node, as its first rank sees it."""
    nodes = {host: of_node[0] for host, of_node in by_host(sights).items()}
    for sight in nodes.values():
        yield from _interfaces(sight, spec)
    if len(nodes) > 1:  # one node needs no cards
        for sight in nodes.values():
            yield from _cards(sight, spec)
        yield from _profile(nodes, spec)


def unmatched(value: str, names: Mapping[str, str], *, exact: bool = False) -> tuple[list[str], bool]:
    """The entries of a list of names that fit none of `names` (name -> state), and whether any name is left to use.

    As NCCL's documentation has it: entries are prefixes; `=` before the list makes them whole names, `^` makes it a
    list of what not to use; a port may follow a card (`mlx5_0:1`). With `exact`, as gloo has it: whole names only.
    """
    excludes, rest = value.startswith("^"), value.removeprefix("^")
    exact, rest = exact or rest.startswith("="), rest.removeprefix("=")
    wanted = [entry.strip().partition(":")[0] for entry in rest.split(",") if entry.strip()]
    usable = [name for name, state in names.items() if state in _USABLE]

    def fits(name: str, entry: str) -> bool:
        return name == entry if exact else name.startswith(entry)

    if excludes:
        return [], any(not any(fits(name, entry) for entry in wanted) for name in usable)
    missing = [entry for entry in wanted if not any(fits(name, entry) for name in usable)]
    return missing, len(missing) < len(wanted) or not wanted


def _interfaces(sight: Sight, spec: RunSpec) -> Iterator[Finding]:
    gloo = spec.hardware.is_cpu  # whose list must be there whole
    variable = "GLOO_SOCKET_IFNAME" if gloo else "NCCL_SOCKET_IFNAME"
    if value := sight.variables.get(variable):
        missing, some = unmatched(value, sight.interfaces, exact=gloo)
        if missing or not some:
            yield _finding(sight, variable, value, sight.interfaces, refuses=gloo or not some)


def _cards(sight: Sight, spec: RunSpec) -> Iterator[Finding]:
    """Without a card NCCL takes the sockets without a word, at a fraction of the rate."""
    value = sight.variables.get("NCCL_IB_HCA")
    if value and not spec.hardware.is_cpu and sight.variables.get("NCCL_IB_DISABLE", "0") == "0":
        missing, some = unmatched(value, sight.cards)
        if missing or not some:
            yield _finding(sight, "NCCL_IB_HCA", value, sight.cards, refuses=not some)


def _profile(nodes: Mapping[str, Sight], spec: RunSpec) -> Iterator[Finding]:
    """Cards of the profile that are not there: the profile's mistake if nowhere, else that node's fault."""
    named = dict.fromkeys(spec.hardware.device_nics)
    missing = {host: [nic for nic in named if not _is_up(nic, sight)] for host, sight in nodes.items()}
    nowhere = {nic for nic in named if all(nic in absent for absent in missing.values())}
    for host, absent in missing.items():
        if broken := [nic for nic in absent if nic not in nowhere]:
            found = f"no working {', '.join(broken)}"
            yield Finding("network", host, (nodes[host].rank,), found, "the cards of the other nodes", refuses=True)
        elif absent:
            found = f"no {', '.join(absent)} on any node"
            yield Finding("network", host, (nodes[host].rank,), found, f"the cards of {spec.hardware.name}")


def _is_up(nic: str, sight: Sight) -> bool:
    return sight.interfaces.get(nic) in _USABLE or sight.cards.get(nic) in _USABLE


def _finding(sight: Sight, variable: str, value: str, names: Mapping[str, str], *, refuses: bool) -> Finding:
    there = ", ".join(name if state in _USABLE else f"{name} ({state})" for name, state in names.items()) or "none"
    found = f"{variable}={value}, and there is {there}"
    expected = "names of what is there and up"
    return Finding("network", sight.host, (sight.rank,), found, expected, refuses, fault="settings")
