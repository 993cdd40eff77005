"""Sets of moments, against sets of whole numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from aiftrain.train.profile.intervals import Interval, Intervals, difference, intersection, length, union

PIECES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)).map(lambda piece: (piece[0], piece[0] + piece[1])))


def moments(pieces: list[Interval] | Intervals) -> set[int]:
    return {moment for start, end in pieces for moment in range(int(start), int(end))}


@given(PIECES)
def test_union_covers_the_same_once(pieces: list[Interval]) -> None:
    joined = union(pieces)
    assert moments(joined) == moments(pieces)
    assert length(joined) == len(moments(pieces))
    assert all(before[1] < after[0] for before, after in pairwise(joined))


@given(PIECES, PIECES)
def test_intersection_and_difference_are_those_of_sets(one: list[Interval], other: list[Interval]) -> None:
    first, second = union(one), union(other)
    assert moments(intersection(first, second)) == moments(one) & moments(other)
    assert moments(difference(first, second)) == moments(one) - moments(other)
    assert length(difference(first, second)) + length(intersection(first, second)) == length(first)
