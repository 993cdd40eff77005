"""Blocks that several threads work on are the same, in the same order, and what goes wrong with one is heard."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator

import pytest

from aiftrain.checkpoint.pipeline import _WAITING, ahead, digesting
from aiftrain.errors import DamagedError

BLOCKS = [random.Random(number).randbytes(1000 + number) for number in range(50)]


def test_nothing_is_lost_or_exchanged_and_all_of_it_is_hashed() -> None:
    digest = hashlib.sha256()
    assert list(digesting(ahead(iter(BLOCKS)), digest)) == BLOCKS
    assert digest.digest() == hashlib.sha256(b"".join(BLOCKS)).digest()
    assert list(ahead([])) == list(digesting([], digest)) == []


def test_blocks_are_made_while_another_is_in_use_but_not_many() -> None:
    made = threading.Semaphore(0)

    def make() -> Iterator[bytes]:
        for block in BLOCKS:
            yield block
            made.release()  # once the next one is asked for

    blocks = ahead(make())
    next(blocks)
    for _ in range(_WAITING):
        assert made.acquire(timeout=10), "the next ones are made while nobody asks"
    assert not made.acquire(timeout=0.1), "so many and no more are kept"
    blocks.close()  # type: ignore[attr-defined]  # a generator


def test_an_error_comes_in_its_place_and_ends_it() -> None:
    def make() -> Iterator[bytes]:
        yield from BLOCKS[:3]
        raise DamagedError("the fourth")

    blocks = digesting(ahead(make()), hashlib.sha256())
    assert [next(blocks) for _ in range(3)] == BLOCKS[:3]
    with pytest.raises(DamagedError, match="the fourth"):
        next(blocks)


def test_who_stops_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    for block in digesting(ahead(iter(BLOCKS)), hashlib.sha256()):
        assert block == BLOCKS[0]
        break
    assert threading.active_count() == before
