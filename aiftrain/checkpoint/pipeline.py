"""Work on a stream of blocks in several threads: enciphering, hashing and writing all leave the interpreter's lock."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

_WAITING = 8  # blocks made ahead, at most: what a write that stalls for a moment is made up for with
_END = object()


def ahead(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same blocks, made by another thread while those before are in use. They must be new memory each."""
    iterator = iter(blocks)
    with ThreadPoolExecutor(1) as maker:
        waiting: deque[Future[object]] = deque(maker.submit(next, iterator, _END) for _ in range(_WAITING))
        try:
            while isinstance(block := waiting.popleft().result(), bytes):
                waiting.append(maker.submit(next, iterator, _END))
                yield block
        finally:
            for each in waiting:
                each.cancel()


def digesting(blocks: Iterable[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    """The same blocks, each hashed by another thread while it is in use. `digest` is that of all after the last one."""
    with ThreadPoolExecutor(1) as hasher:
        hashed: Future[None] | None = None
        for block in blocks:
            if hashed:
                hashed.result()
            hashed = hasher.submit(digest.update, block)
            yield block
