"""This machine's memory: how much a process may have, and how much of it is left. Linux."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aiftrain.run.reading import text_of

MAY_TAKE = 0.8  # of what is available, for a copy of the state: training goes on meanwhile, and may want some more
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class _Group:
    """A control group that limits memory; version 1 and 2 have other names for the same files."""

    limit: Path
    used: Path
    statistics: Path
    inactive: str  # what of `used` is a cache of files that gives way


def total_memory() -> int | None:
    """Bytes: the machine's, or the limit of a control group around this process where that is less."""
    machine = _of_meminfo("MemTotal")
    limits = [machine, *(_number(group.limit) for group in _groups())]
    return min((limit for limit in limits if limit is not None), default=None)


def available_memory() -> int | None:
    """Bytes that may still be taken before something has to be swapped out or killed; None where nobody tells."""
    left = [_of_meminfo("MemAvailable"), *map(_room_in, _groups())]
    known = [room for room in left if room is not None]
    return max(0, min(known)) if known else None


def _room_in(group: _Group) -> int | None:
    limit, used = _number(group.limit), _number(group.used)
    if limit is None or used is None:
        return None
    found = re.search(rf"^{group.inactive} (\d+)", text_of(group.statistics), re.MULTILINE)
    return limit - used + (int(found[1]) if found else 0)


def _groups() -> Iterator[_Group]:
    """The groups that this process is in, and those around them."""
    for folder in _around(_CGROUPS, r"^0::/(.*)$"):
        yield _Group(folder / "memory.max", folder / "memory.current", folder / "memory.stat", "inactive_file")
    for folder in _around(_CGROUPS / "memory", r"^\d+:memory:/(.*)$"):
        limit, used = folder / "memory.limit_in_bytes", folder / "memory.usage_in_bytes"
        yield _Group(limit, used, folder / "memory.stat", "total_inactive_file")


def _around(root: Path, line: str) -> list[Path]:
    found = re.search(line, text_of(Path("/proc/self/cgroup")), re.MULTILINE)
    group = root / found[1] if found else root
    return [group, *(folder for folder in group.parents if folder.is_relative_to(root))]


def _of_meminfo(key: str) -> int | None:
    found = re.search(rf"^{key}:\s+(\d+) kB", text_of(Path("/proc/meminfo")), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _number(file: Path) -> int | None:
    """A file's number; None where it has none, or says `max`."""
    text = text_of(file).strip()
    return int(text) if text.isdigit() else None
