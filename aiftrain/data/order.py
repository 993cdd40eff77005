"""The order of samples: which source, and which window of it, sample number n is.

It is a pure function of (seed, n) and of what changed on the way. Nothing is stored and nothing is shuffled in memory,
so that any place in a corpus of any size is reached at once: resuming costs nothing and is exact.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from aiftrain.data.gaps import Gap, runs
from aiftrain.data.shuffle import Numbers, WindowOrder, mix
from aiftrain.errors import UserError

BLOCK = 4096  # samples in which every source has its exact quota

_KEPT = 4  # blocks remembered


class Samples(NamedTuple):
    """For each sample the number of its source and the number of the window there, both [n]."""

    sources: Numbers
    windows: Numbers


class Mixing(NamedTuple):
    """From sample `first_sample` on: how the sources are mixed, and how they are cut.

    Windows are `length` tokens, and units, which are shuffled as one, `unit` tokens. A source of weight 0 is not read.
    """

    first_sample: int
    weights: Mapping[str, float]
    length: int
    unit: int


class SampleOrder:
    """The mixture of several sources, through all its stretches.

    Samples come in blocks of `BLOCK`, counted from the beginning of a stretch. In a block each source has its quota
    (the largest-remainder method, at least one sample), spread evenly with a random phase, so that every prefix is
    close to the weights. A source's windows are visited in a new pseudo-random order each epoch, each at most once,
    and a new stretch goes on where the one before it has come to.
    """

    def __init__(self, tokens: Mapping[str, int], stretches: Sequence[Mixing], seed: int) -> None:
        """`tokens` of each source, to be cut into units from the first one on."""
        self._stretches = [_Stretch(tokens, stretches[0], seed)]
        for before, mixing in pairwise(stretches):
            reached = self._stretches[-1].reached(mixing.first_sample - before.first_sample)
            self._stretches.append(_Stretch(tokens, mixing, seed, reached))
        self._begins = [mixing.first_sample for mixing in stretches]

    def samples(self, start: int, count: int, skipped: int = 0) -> Samples:
        """Samples [start, start + count), which lie in one stretch, `skipped` samples further on in that."""
        number = self._stretch(start)
        return self._stretches[number].samples(start + skipped - self._begins[number], count)

    def counts(self, samples: int, gaps: Sequence[Gap] = ()) -> list[Numbers]:
        """How many of the first `samples` samples come from each source, by the stretch that they lie in.

        `gaps` of the order are left out, and what comes behind them is taken.
        """
        last = self._stretch(samples)
        ends = [*self._begins[1 : last + 1], samples]
        begun = zip(self._stretches, self._begins, ends, strict=False)
        return [_counted(stretch, begin, end, gaps) for stretch, begin, end in begun]

    def _stretch(self, sample: int) -> int:
        return bisect_right(self._begins, sample) - 1


def _counted(stretch: _Stretch, begin: int, end: int, gaps: Sequence[Gap]) -> Numbers:
    """Of samples [begin, end), all of one stretch, how many come from each source."""
    total = stretch.counts(0)
    for first, last, skipped in runs(gaps, end):
        if last > begin:
            start, stop = max(first, begin) + skipped - begin, last + skipped - begin
            total = total + stretch.counts(stop) - stretch.counts(start)
    return total


class _Reached(NamedTuple):
    """Where a source stands: its order in a stretch with units of so many tokens, and the next position there."""

    order: WindowOrder
    unit: int
    position: int

    def gone_on(self, order: WindowOrder, unit: int) -> int:
        """The position in another order of the source that comes after all that was read.

        Where units are the same, behind those that are used up; else in a new epoch.
        """
        if unit != self.unit:
            return -(-self.position // self.order.windows) * order.windows
        if order.per_unit == self.order.per_unit:
            return self.position
        return self.order.units_before(self.position) * order.per_unit


class _Stretch:
    """One stretch of the order; its samples are counted from 0."""

    def __init__(
        self, tokens: Mapping[str, int], mixing: Mixing, seed: int, reached: Sequence[_Reached] | None = None
    ) -> None:
        self._unit = mixing.unit
        self._keys = [_key(seed, name) for name in tokens]
        cut = zip(tokens.values(), self._keys, strict=True)
        self._orders = [WindowOrder(count // mixing.unit, mixing.unit // mixing.length, key) for count, key in cut]
        self._begins = [0] * len(tokens)
        if reached is not None:
            moved = zip(reached, self._orders, strict=True)
            self._begins = [place.gone_on(order, mixing.unit) for place, order in moved]
        self._quotas = quotas([mixing.weights.get(name, 0.0) for name in tokens])
        self._blocks: dict[int, Samples] = {}

    def samples(self, start: int, count: int) -> Samples:
        stop = start + count
        blocks = [(number * BLOCK, self._block(number)) for number in range(start // BLOCK, -(-stop // BLOCK))]
        pieces = [(slice(max(start - at, 0), stop - at), block) for at, block in blocks]
        return Samples(
            np.concatenate([np.empty(0, np.int64), *(block.sources[piece] for piece, block in pieces)]),
            np.concatenate([np.empty(0, np.int64), *(block.windows[piece] for piece, block in pieces)]),
        )

    def counts(self, samples: int) -> Numbers:
        """How many of the first `samples` come from each source."""
        block, rest = divmod(samples, BLOCK)
        begun = np.bincount(self._block(block).sources[:rest], minlength=len(self._quotas))
        return block * self._quotas + begun

    def reached(self, samples: int) -> list[_Reached]:
        """Where each source stands after so many samples."""
        positions = (self._begins + self.counts(samples)).tolist()
        return [_Reached(order, self._unit, position) for order, position in zip(self._orders, positions, strict=True)]

    def _block(self, number: int) -> Samples:
        if number not in self._blocks:
            self._blocks = dict(list(self._blocks.items())[1 - _KEPT :])
            self._blocks[number] = self._make_block(number)
        return self._blocks[number]

    def _make_block(self, number: int) -> Samples:
        phases = mix(np.array(self._keys, np.uint64) ^ mix(np.array([number], np.uint64))) / 2**64
        times = [(np.arange(quota) + phase) / quota for quota, phase in zip(self._quotas, phases, strict=True)]
        windows = [
            order.at(begin + number * quota + np.arange(quota))
            for order, begin, quota in zip(self._orders, self._begins, self._quotas, strict=True)
        ]
        order = np.argsort(np.concatenate(times), kind="stable")
        sources = np.repeat(np.arange(len(self._quotas)), self._quotas)
        return Samples(sources[order], np.concatenate(windows)[order])


def quotas(weights: Sequence[float]) -> Numbers:
    """How many of `BLOCK` samples each source gets, by the largest-remainder method: at least one, 0 for weight 0.

    Raises UserError where there are more sources than samples in a block.
    """
    heard = np.array(weights) > 0
    if heard.sum() > BLOCK:
        raise UserError(f"{heard.sum()} sources cannot be mixed: {BLOCK} are possible")
    exact = np.array(weights) / sum(weights) * BLOCK
    shares = np.floor(exact).astype(np.int64)
    first = np.argsort(shares - exact, kind="stable")[: BLOCK - shares.sum()]
    shares[first] += 1
    for starved in np.flatnonzero((shares == 0) & heard):
        shares[np.argmax(shares)] -= 1
        shares[starved] = 1
    return shares


def _key(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "little")
