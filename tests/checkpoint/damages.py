"""Random damage to files, undone afterwards: a byte changed, an end cut off, two files exchanged, one left out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KINDS = ("flip", "cut", "swap", "omit")


@contextmanager
def damage(kind: str, before: dict[Path, bytes], dice: random.Random) -> Iterator[dict[Path, bytes | None]]:
    """Do something of this kind to one of the files, or to two; what is in them now, None for one that is gone."""
    changed = _CHANGES[kind](before, dice)
    try:
        for file, content in changed.items():
            file.unlink() if content is None else file.write_bytes(content)
        yield changed
    finally:
        for file in changed:
            file.write_bytes(before[file])


def _flip(before: dict[Path, bytes], dice: random.Random) -> dict[Path, bytes | None]:
    file, content = _one(before, dice)
    place = dice.randrange(len(content))
    return {file: content[:place] + bytes([content[place] ^ dice.randint(1, 255)]) + content[place + 1 :]}


def _cut(before: dict[Path, bytes], dice: random.Random) -> dict[Path, bytes | None]:
    file, content = _one(before, dice)
    return {file: content[: dice.randrange(len(content))]}


def _swap(before: dict[Path, bytes], dice: random.Random) -> dict[Path, bytes | None]:
    while True:
        one, other = dice.sample(sorted(before), 2)
        if before[one] != before[other]:
            return {one: before[other], other: before[one]}


def _omit(before: dict[Path, bytes], dice: random.Random) -> dict[Path, bytes | None]:
    return {_one(before, dice)[0]: None}


def _one(before: dict[Path, bytes], dice: random.Random) -> tuple[Path, bytes]:
    return dice.choice(sorted(before.items()))


_CHANGES = {"flip": _flip, "cut": _cut, "swap": _swap, "omit": _omit}
