"""SHA-256 of the files of a corpus, remembered by path, size and time of change, so that each is read once."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from aiftrain.data.files import reading
from aiftrain.run.folder import append_line, read_lines

_SETTLED_S = 2.0  # a file changed this recently may change again within the resolution of its time stamp

_State = tuple[str, int, int]  # path, size, time of change in nanoseconds


class FileDigests:
    """The digests of files, kept as JSON lines in `memory`. Several processes may add to it at once."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        lines = read_lines(memory)
        self._known: dict[_State, str] = {(r["path"], r["size"], r["mtime_ns"]): r["sha256"] for r in lines}

    def known(self, files: Iterable[Path], read_at_most: int = 0) -> dict[Path, str] | None:
        """The digests of all files, or None where more than so many bytes would have to be read. Writes nothing."""
        states = {file: _state(file) for file in files}
        if sum(state[1] for state in states.values() if state not in self._known) > read_at_most:
            return None
        return {file: self._known.get(state) or _digest(file) for file, state in states.items()}

    def compute(self, files: Iterable[Path], threads: int, advance: Callable[[int], None]) -> dict[Path, str]:
        """The digests of all files; those that are new or have changed are read. `advance` is told the bytes."""
        states = {file: _state(file) for file in files}
        unknown = [file for file, state in states.items() if state not in self._known]
        with ThreadPoolExecutor(threads) as pool:
            reads = {pool.submit(_digest, file): file for file in unknown}
            for read in as_completed(reads):
                self._remember(states[reads[read]], read.result())
                advance(states[reads[read]][1])
        return {file: self._known[state] for file, state in states.items()}

    def _remember(self, state: _State, digest: str) -> None:
        self._known[state] = digest
        path, size, mtime_ns = state
        if time.time() - mtime_ns / 1e9 > _SETTLED_S:
            append_line(self._memory, {"path": path, "size": size, "mtime_ns": mtime_ns, "sha256": digest})


def _state(file: Path) -> _State:
    with reading(file):
        stat = file.stat()
    return str(file), stat.st_size, stat.st_mtime_ns


def _digest(file: Path) -> str:
    with reading(file), file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
