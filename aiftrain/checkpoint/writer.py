"""The process beside a rank that writes its shards: `python writer.py DESCRIPTOR`, of the standard library alone.

The rank copies its state into the memory behind the descriptor and goes on training; this process writes that memory
to a file, and reads the file again. Jobs come as JSON lines {"path", "size", "mark"}; each is answered by a line: the
fields of `Written`, or {"errno", "strerror"}. The process ends with its rank, and never before it by a signal that a
scheduler sends to all processes of a job.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import mmap
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

BLOCK = 8 << 20  # bytes hashed and written at a time: the second reader finds them in the cache
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_OF_THE_JOB = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGURG)


class Written(NamedTuple):
    """A file that was written and read again: its bytes, and digests (SHA-256, hexadecimal).

    `mark`: of the bytes up to the mark; `found`: of what was read again. Seconds: of writing and syncing, of reading.
    """

    size: int
    sha256: str
    mark: str
    found: str
    write_seconds: float
    read_seconds: float


def write_file(path: str | os.PathLike[str], blocks: Iterable[bytes | memoryview], mark: int = 0) -> Written:
    """Write `blocks` to a file, sync it, and read it again from the disk. OSError as it comes; then no file is left.

    A block has to end at `mark`, a number of bytes.
    """
    started = time.monotonic()
    try:
        with open(path, "wb", buffering=0) as stream:  # noqa: PTH123  (this process has no pathlib)
            size, sha256, of_mark = _write(stream, blocks, mark)
        written = time.monotonic()
        found = _read_again(path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108
        raise
    return Written(size, sha256, of_mark, found, written - started, time.monotonic() - written)


def _write(stream: Any, blocks: Iterable[bytes | memoryview], mark: int) -> tuple[int, str, str]:
    """Hashing leaves the interpreter's lock, as writing does: a block takes as long as the slower of the two."""
    digest, size = hashlib.sha256(), 0
    of_mark = digest.hexdigest()
    with ThreadPoolExecutor(1) as hasher:
        for block in blocks:
            hashed = hasher.submit(digest.update, block)
            _write_whole(stream, block)
            _begin_to_disk(stream, size, len(block))
            hashed.result()
            size += len(block)
            of_mark = digest.hexdigest() if size == mark else of_mark
    os.fsync(stream.fileno())
    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # what is read again shall come from the disk
    return size, digest.hexdigest(), of_mark


def _write_whole(stream: Any, block: bytes | memoryview) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[stream.write(rest) :]


def _begin_to_disk(stream: BinaryIO, start: int, length: int) -> None:
    """Linux starts to write back what it is told will not be needed: at the end there is then little left to sync."""
    os.posix_fadvise(stream.fileno(), start, length, os.POSIX_FADV_DONTNEED)


def _read_again(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as stream:  # noqa: PTH123
        return hashlib.file_digest(stream, "sha256").hexdigest()


def blocks_of(memory: memoryview, size: int, mark: int) -> Iterator[memoryview]:
    """The first `size` bytes in blocks, of which one ends at `mark`."""
    for first, last in ((0, mark), (mark, size)):
        for start in range(first, last, BLOCK):
            yield memory[start : min(start + BLOCK, last)]


def serve(descriptor: int) -> None:
    """Do jobs until there are no more to come."""
    shared: mmap.mmap | None = None
    for line in sys.stdin:
        job = json.loads(line)
        if shared is None or len(shared) < job["size"]:
            shared = mmap.mmap(descriptor, job["size"], prot=mmap.PROT_READ)
        print(json.dumps(_answer(memoryview(shared), job)), flush=True)


def _answer(memory: memoryview, job: dict[str, Any]) -> dict[str, Any]:
    try:
        return write_file(job["path"], blocks_of(memory, job["size"], job["mark"]), job["mark"])._asdict()
    except OSError as error:
        return {"errno": error.errno, "strerror": error.strerror}


def _live_beside(rank: int) -> None:
    """Die with the rank, even if it is killed, so that nothing writes into the folders of a later start; be nice."""
    for number in _OF_THE_JOB:
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != rank:
        sys.exit()  # it died before
    os.nice(19)  # the kernel derives the priority of input and output from it: the lowest of best effort


if __name__ == "__main__":
    _live_beside(int(sys.argv[2]))
    serve(int(sys.argv[1]))
