"""Sets of moments as sorted intervals that do not touch: [(start, end), ...]."""

from __future__ import annotations

from collections.abc import Iterable

Interval = tuple[float, float]
Intervals = list[Interval]


def union(pieces: Iterable[Interval]) -> Intervals:
    """What any of the pieces covers; they may overlap, and stand in any order."""
    joined: Intervals = []
    for start, end in sorted(piece for piece in pieces if piece[1] > piece[0]):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def intersection(one: Intervals, other: Intervals) -> Intervals:
    """What both cover."""
    found: Intervals = []
    first = second = 0
    while first < len(one) and second < len(other):
        start, end = max(one[first][0], other[second][0]), min(one[first][1], other[second][1])
        if start < end:
            found.append((start, end))
        if one[first][1] < other[second][1]:
            first += 1
        else:
            second += 1
    return found


def difference(one: Intervals, other: Intervals) -> Intervals:
    """What `one` covers and `other` does not."""
    found: Intervals = []
    place = 0
    for start, end in one:
        while place < len(other) and other[place][1] <= start:
            place += 1
        at, at_place = start, place
        while at_place < len(other) and other[at_place][0] < end:
            if other[at_place][0] > at:
                found.append((at, other[at_place][0]))
            at = max(at, other[at_place][1])
            at_place += 1
        if at < end:
            found.append((at, end))
    return found


def length(intervals: Intervals) -> float:
    """Of all of them together."""
    return sum(end - start for start, end in intervals)
