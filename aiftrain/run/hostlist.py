"""Lists of host names: Slurm's short form, nid[0001-0003,0007],login1, and those of ranks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

_RANGE = r"[0-9]+(?:-[0-9]+)?"
_ENTRY = re.compile(rf"([^,\[\]]*)(?:\[({_RANGE}(?:,{_RANGE})*)\])?([^,\[\]]*)(?:,|$)")


def expand(text: str) -> list[str]:
    """All names, in their order; none where the form is one that this does not know, such as two brackets in a name."""
    if not re.fullmatch(rf"(?:{_ENTRY.pattern})+", text):
        return []
    names = (name for entry in _ENTRY.finditer(text) if entry[0] for name in _names(*entry.groups()))
    return list(names)


def ranks_by_host(hosts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Host -> its ranks, of hosts in order of rank."""
    nodes: dict[str, list[int]] = defaultdict(list)
    for rank, host in enumerate(hosts):
        nodes[host].append(rank)
    return {host: tuple(ranks) for host, ranks in nodes.items()}


def _names(before: str, numbers: str | None, after: str) -> Iterator[str]:
    if numbers is None:
        yield before + after
        return
    for part in numbers.split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield f"{before}{number:0{len(first)}d}{after}"
