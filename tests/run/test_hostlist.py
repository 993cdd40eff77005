"""Slurm's short form of host names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.run.hostlist import expand, ranks_by_host


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("nid[0001-0003,0007],login1", ["nid0001", "nid0002", "nid0003", "nid0007", "login1"]),
        ("jpbo-012-[09-11]", ["jpbo-012-09", "jpbo-012-10", "jpbo-012-11"]),
        ("a[1]-ib,b", ["a1-ib", "b"]),
        ("one", ["one"]),
        ("", []),
        ("rack[0-1]node[0-3]", []),
    ],
)
def test_lists(text: str, names: list[str]) -> None:
    assert expand(text) == names


@given(st.text("ab[]-,019", max_size=12))
def test_nothing_that_somebody_writes_breaks_it(text: str) -> None:
    assert isinstance(expand(text), list)


def test_ranks_by_host() -> None:
    assert ranks_by_host(["a", "a", "b", "a"]) == {"a": (0, 1, 3), "b": (2,)}
