"""Who is slow, from every rank's own work."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aiftrain.train.stragglers import Straggler, find

USUAL = st.floats(0.95, 1.05)


@given(st.lists(USUAL, min_size=2, max_size=40), st.data())
def test_one_slow_rank_is_named_and_nobody_else(work: list[float], data: st.DataObject) -> None:
    hosts = [f"n{rank // 4}" for rank in range(len(work))]
    assert find(work, hosts, step=3.0) == []
    slow = data.draw(st.integers(0, len(work) - 1))
    work[slow] = 2.0
    [straggler] = find(work, hosts, step=3.0)
    assert straggler.ranks == (slow,) and straggler.host == hosts[slow]
    assert 1.9 <= straggler.ratio <= 2.11


def test_a_host_all_of_whose_ranks_are_slow_is_named_as_one() -> None:
    work, hosts = [1.0, 1.0, 2.0, 1.5, 1.0, 1.0], ["a", "a", "b", "b", "c", "c"]
    assert find(work, hosts, step=3.0) == [Straggler("b", (2, 3), 2.0)]
    assert [s.ranks for s in find(work[:4], ["a"] * 4, step=3.0)] == [(2,), (3,)]


def test_who_is_late_in_nothing_much_holds_nobody_up() -> None:
    assert find([0.001, 0.002], ["a", "a"], step=1.0) == []
    assert find([0.1, 0.2], ["a", "a"], step=1.0) != []


def test_ranks_are_compared_with_those_of_their_own_stage() -> None:
    work, hosts, stages = [1.0, 1.0, 3.0, 3.0], ["a"] * 4, [0, 0, 1, 1]
    assert find(work, hosts, 9.0, stages) == []
    assert find([1.0, 1.0, 3.0, 4.5], hosts, 9.0, stages) == [Straggler("a", (3,), 1.5)]
    assert find([1.0, 9.0], ["a"] * 2, 9.0, [0, 1]) == [], "a rank without its like is measured by nothing"
