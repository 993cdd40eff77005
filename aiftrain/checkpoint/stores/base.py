"""What a place for checkpoints can do, be it a folder or an S3 service: objects by name, written whole or not at all.

Archives, `ship` and export stand on this and know no other difference between places. Every error that a store raises
is one of ours (errors.py), says the address, and never has a secret in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from aiftrain.errors import MachineError

Octets = bytes | bytearray | memoryview


class AlreadyThereError(MachineError):
    """An object that was to be new has been written before, by this process or another."""


@dataclass(frozen=True)
class Entry:
    """One object: its name under the store's address, bytes, and when it was written, in unix seconds."""

    name: str
    size: int
    modified: float


class Store(Protocol):
    """Objects under one address. Names are relative: parts of [A-Za-z0-9._-] joined by slashes.

    DamagedError where an object that is read is missing or shorter than asked for; MachineError where the place fails
    (full, unreachable, forbidden); UserError where it may not be used as it is set up.
    """

    @property
    def address(self) -> str:
        """What a person would write to mean this place; without secrets."""
        ...

    @property
    def confirms(self) -> bool:
        """Whether `write` compares what is stored with what was sent before it returns: nobody need read it back."""
        ...

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """All objects whose names begin with `prefix`, in the order of their names."""
        ...

    def entry(self, name: str) -> Entry | None:
        """One object, None where there is none."""
        ...

    def read(self, name: str, start: int, target: memoryview) -> None:
        """Fill `target` with the object's bytes from `start` on."""
        ...

    def blocks(self, name: str) -> Iterator[bytes]:
        """The whole object, a few MiB at a time."""
        ...

    def write(self, name: str, blocks: Iterable[Octets], size: int, *, new: bool = False) -> None:
        """Write an object of `size` bytes: durable on return, and until then not there.

        `new`: AlreadyThereError where it exists, decided by the place itself where it can, so that of two writers one
        wins. Otherwise what was there is replaced.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove an object; nothing happens where there is none."""
        ...

    def clear_unfinished(self, prefix: str = "", *, older_than: float = 0.0) -> int:
        """Remove what killed writers have left of objects whose names begin with `prefix`; how many they were.

        `older_than`: begun at least so many seconds ago, where the place cannot tell whether a writer lives.

        Only where no other process has reason to write such objects.
        """
        ...

    def check_room(self, size: int, files: int) -> None:
        """MachineError where `size` more bytes in `files` objects would not fit, as far as the place can tell."""
        ...

    def check_private(self) -> None:
        """UserError where others than those it was made for may look into this place, as far as can be seen."""
        ...
