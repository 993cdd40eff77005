"""The nodes that jobs keep away from: a text file that a team shares, one node a line, for a week each.

    nid005012<TAB>2026-11-26T11:03:00+00:00<TAB>3 of 8 devices are there (runs/eu-llm-7b/0123456789ab)

Whoever knows better deletes a line, or adds one by hand: a name alone counts for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from aiftrain.errors import MachineError

KEPT = timedelta(days=7)  # sites mend their nodes, and a list that only grows ends with no nodes at all


def default_file(factory: str) -> Path:
    """Where the nodes of a factory are listed unless `launcher.bad_nodes` says otherwise."""
    return Path("runs", "bad-nodes", f"{factory}.txt")


def note_bad_node(file: Path, node: str, reason: str, now: datetime) -> None:
    """Add a node. Lines of several writers do not mix: each is one short write to the end. MachineError: it cannot."""
    words = (node, now.isoformat(timespec="seconds"), " ".join(reason.split()))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab", buffering=0) as stream:
            stream.write(("\t".join(words) + "\n").encode())
    except OSError as error:
        raise MachineError(f"cannot write {file}: {error.strerror}") from error


def read_bad_nodes(file: Path, now: datetime) -> list[str]:
    """The nodes that count at `now`, in order of their names; none where there is no such file."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise MachineError(f"cannot read {file}: {error.strerror}") from error
    return sorted(set(_counting(lines, now)))


def _counting(lines: list[str], now: datetime) -> Iterator[str]:
    for line in lines:
        node, *when = line.split("\t")[:2]
        if node.strip() and not node.startswith("#") and not _is_old("".join(when), now):
            yield node.strip()


def _is_old(written: str, now: datetime) -> bool:
    try:
        return now - datetime.fromisoformat(written) > KEPT
    except (ValueError, TypeError):  # no time, or one without a zone: a person's line
        return False
