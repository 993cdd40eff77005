"""Gaps in the order of samples: the same samples as a walk past them gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aiftrain.data.gaps import left_out, merge

GAPS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 15)).map(lambda gap: (gap[0], sum(gap))), max_size=5)


@given(GAPS)
def test_the_order_without_its_gaps(gaps: list[tuple[int, int]]) -> None:
    kept = [sample for sample in range(200) if not any(start <= sample < stop for start, stop in gaps)]
    merged = merge(gaps)
    assert [sample + left_out(merged, sample) for sample in range(len(kept))] == kept


def test_gaps_that_touch_or_overlap_become_one() -> None:
    assert merge([(20, 30), (0, 5), (5, 10), (25, 28), (28, 35)]) == [(0, 10), (20, 35)]
