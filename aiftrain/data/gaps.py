"""Gaps: stretches of the sample order that a run leaves out, because what it met there did harm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

Gap = tuple[int, int]  # samples [start, stop) of the order


def merge(gaps: Iterable[Gap]) -> list[Gap]:
    """The same samples in as few gaps as can be, in ascending order."""
    merged: list[Gap] = []
    for start, stop in sorted(gaps):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def left_out(gaps: Sequence[Gap], sample: int) -> int:
    """How many samples are left out before the `sample`-th (from 0) of those that are not. `gaps` as `merge` gives."""
    count = 0
    for start, stop in gaps:
        if sample + count < start:
            break
        count += stop - start
    return count


def runs(gaps: Sequence[Gap], samples: int) -> Iterator[tuple[int, int, int]]:
    """Stretches [first, last) of the samples that are not left out, each with how many are left out before it."""
    first = skipped = 0
    for start, stop in gaps:
        last = min(start - skipped, samples)
        if last > first:
            yield first, last, skipped
        first, skipped = max(first, last), skipped + stop - start
    if first < samples:
        yield first, samples, skipped
