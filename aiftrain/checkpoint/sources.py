"""Bytes to read at random: a file, an object in a store, a sealed one opened. What a tensor file is read from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from aiftrain.checkpoint.durable import reading
from aiftrain.checkpoint.stores.base import Entry, Store
from aiftrain.errors import DamagedError


class Source(Protocol):
    """`size` bytes called `name` (for messages)."""

    name: str
    size: int

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill `target` with the bytes from `offset` on. DamagedError where there are too few."""
        ...

    def close(self) -> None: ...


class FileSource:
    """A file. Plain reads, no memory map: a file that shrinks meanwhile is then an error and not a SIGBUS."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        with reading(path):
            self._stream = path.open("rb", buffering=0)
            self.size = os.fstat(self._stream.fileno()).st_size

    def read_into(self, offset: int, target: memoryview) -> None:
        with reading(self._path):
            self._stream.seek(offset)
            while target:
                count = self._stream.readinto(target)
                if not count:
                    raise DamagedError(f"{self.name} is damaged: it ends {len(target)} bytes too early")
                target = target[count:]

    def close(self) -> None:
        self._stream.close()


class StoredSource:
    """An object in a store, read by ranges."""

    def __init__(self, store: Store, entry: Entry) -> None:
        self.name = f"{store.address}/{entry.name}"
        self.size = entry.size
        self._store = store
        self._entry = entry

    def read_into(self, offset: int, target: memoryview) -> None:
        self._store.read(self._entry.name, offset, target)

    def close(self) -> None:
        """Nothing is held open."""
