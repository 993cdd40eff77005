"""The egress record of a run: who was spoken to, by which process, from when to when, and which rule allowed it.

Each rank writes a file of its own, which only grows: a line when somebody is first seen, and one when it is known until
when. Readers put the lines of all files together.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from aiftrain.errors import MachineError
from aiftrain.run.folder import append_line, read_lines

# refused: before anything was sent. forbidden: no rule allows it, and the kernel shows it all the same
Outcome = Literal["allowed", "refused", "forbidden"]


@dataclass(frozen=True)
class Contact:
    """Somebody that a process spoke to, or tried to. Inside of the job only the rule and the protocol are noted."""

    process: str
    protocol: str  # tcp, udp; dns: the name alone was asked for
    host: str | None = None  # the name, where it is known
    address: str | None = None
    port: int | None = None
    rule: str | None = None  # that allows it
    outcome: Outcome = "allowed"


@dataclass
class Seen:
    """A contact, the time that it was seen in, in unix seconds, and who wrote it down: rank-00000, ship."""

    contact: Contact
    first: float
    last: float
    writers: set[str] = field(default_factory=set)


class Record:
    """One process' file. Any thread may note something."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._seen: dict[Contact, Seen] = {}

    def note(self, contact: Contact) -> None:
        """`contact` is there now. MachineError where that cannot be written."""
        now = time.time()
        new = Seen(contact, now, now)
        seen = self._seen.setdefault(contact, new)  # one step: no lock, which a fork could leave shut
        seen.last = now
        if seen is new:
            try:
                self._write(seen)
            except MachineError:
                del self._seen[contact]  # to be tried again
                raise

    def close(self) -> None:
        """Write down until when everybody was seen."""
        for seen in list(self._seen.values()):
            if seen.last > seen.first:
                self._write(seen)

    def _write(self, seen: Seen) -> None:
        append_line(self.file, asdict(seen.contact) | {"first": seen.first, "last": seen.last})


def read_contacts(files: Iterable[Path]) -> list[Seen]:
    """All that these files tell, each contact once: those that no rule allows first, then in order of time."""
    found: dict[Contact, Seen] = {}
    for file in files:
        for seen in _lines(file):
            known = found.setdefault(seen.contact, seen)
            known.first, known.last = min(known.first, seen.first), max(known.last, seen.last)
            known.writers.add(file.name.partition(".")[0])
    return sorted(found.values(), key=lambda seen: (seen.contact.outcome == "allowed", seen.first))


def _lines(file: Path) -> Iterator[Seen]:
    for line in read_lines(file):
        try:
            times = float(line.pop("first")), float(line.pop("last"))
            yield Seen(Contact(**line), *times)
        except (KeyError, TypeError, ValueError):
            continue  # of another version
