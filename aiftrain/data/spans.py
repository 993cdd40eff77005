"""Work units: the spans of a source's files that one worker encodes at a time.

How a source is cut depends on its files alone, never on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Span(NamedTuple):
    """The bytes [start, stop) of a file: the whole file, or a part of it that holds whole documents."""

    file: str
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


Unit = list[Span]
NextCut = Callable[[Path, int], int]  # (file, position) -> where it can be cut after that, at the latest its end

_SMALLEST = 1 << 20
_LARGEST = 256 << 20
_UNITS = 256  # how many units a source is cut into, as far as the sizes above allow


def unit_size(total: int) -> int:
    """Bytes a unit should have: small enough to share out and to lose, large enough to be worth its files."""
    return min(max(total // _UNITS, _SMALLEST), _LARGEST)


def make_units(files: Iterable[tuple[Path, int]], next_cut: NextCut) -> list[Unit]:
    """Files (with their sizes), in their order, as units of about `unit_size` bytes."""
    sized = list(files)
    size = unit_size(sum(length for _, length in sized))
    units: list[Unit] = []
    room = 0
    for span in _spans(sized, next_cut, size):
        if room <= 0:
            units.append([])
            room = size
        units[-1].append(span)
        room -= span.size
    return units


def _spans(files: list[tuple[Path, int]], next_cut: NextCut, size: int) -> Iterator[Span]:
    for file, length in files:
        start = 0
        while length - start > size:
            stop = next_cut(file, start + size)
            yield Span(str(file), start, stop)
            start = stop
        if start < length:
            yield Span(str(file), start, length)
