"""Files on their way to or from a store, several at a time: it answers late, and seldom has one connection alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

_AT_ONCE = 4  # each of them holds some parts in memory, too


def several(work: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """What `work` gives for each item, in their order. What one raises ends all: those that wait do not begin."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
