"""Work units cover every byte of a source once, whatever the sizes of its files."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from aiftrain.data.spans import make_units, unit_size

_MIB = 1 << 20


@given(sizes=st.lists(st.integers(0, 5 * _MIB), max_size=30), line=st.integers(1, _MIB))
def test_units_cover_every_byte_once_and_in_order(sizes: list[int], line: int) -> None:
    files = [(Path(f"/{number:03d}"), size) for number, size in enumerate(sizes)]
    length = dict(files)
    units = make_units(files, lambda file, position: min((position // line + 1) * line, length[file]))
    spans = [span for unit in units for span in unit]
    assert [span.file for span in spans] == sorted(span.file for span in spans)
    for file, size in files:
        own = [span for span in spans if span.file == str(file)]
        edges = [0, *(span.stop for span in own)]
        assert [span.start for span in own] == edges[:-1]
        assert edges[-1] == size
    assert all(sum(span.size for span in unit) < 3 * _MIB for unit in units)


def test_units_grow_with_the_corpus_within_bounds() -> None:
    assert unit_size(0) == unit_size(10 * _MIB) == _MIB
    assert unit_size(1024 * _MIB) == 4 * _MIB
    assert unit_size(10**13) == 256 * _MIB
