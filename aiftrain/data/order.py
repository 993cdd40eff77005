"""The order of samples: which source, and which window of it, sample number n is.

It is a pure function of (seed, n). Nothing is stored and nothing is shuffled in memory, so that any place in
a corpus of any size is reached at once: resuming costs nothing and is exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aiftrain.errors import UserError

Numbers = NDArray[np.int64]
Words = NDArray[np.uint64]

BLOCK = 4096  # samples in which every source has its exact quota

_ROUNDS = 6
_KEPT = 4  # blocks remembered
_GOLDEN = 0x9E3779B97F4A7C15


class Samples(NamedTuple):
    """For each sample the number of its source and the number of the window there, both [n]."""

    sources: Numbers
    windows: Numbers


class SampleOrder:
    """The mixture of several sources, given how many windows each has and its share of the samples.

    Samples come in blocks of `BLOCK`. In a block each source has its quota (the largest-remainder method, at
    least one sample), spread evenly with a random phase, so that every prefix is close to the weights.
    A source's windows are visited in a new pseudo-random order each epoch, each exactly once.
    """

    def __init__(self, windows: Mapping[str, int], weights: Mapping[str, float], seed: int) -> None:
        self._keys = [_key(seed, name) for name in windows]
        self._shuffles = [ShuffledWindows(count, key) for count, key in zip(windows.values(), self._keys, strict=True)]
        self._quotas = quotas([weights[name] for name in windows])
        self._blocks: dict[int, Samples] = {}

    def samples(self, start: int, count: int) -> Samples:
        """Samples [start, start + count)."""
        stop = start + count
        blocks = [(number * BLOCK, self._block(number)) for number in range(start // BLOCK, -(-stop // BLOCK))]
        pieces = [(slice(max(start - at, 0), stop - at), block) for at, block in blocks]
        return Samples(
            np.concatenate([np.empty(0, np.int64), *(block.sources[piece] for piece, block in pieces)]),
            np.concatenate([np.empty(0, np.int64), *(block.windows[piece] for piece, block in pieces)]),
        )

    def counts(self, samples: int) -> Numbers:
        """How many of the first `samples` samples come from each source."""
        block, rest = divmod(samples, BLOCK)
        begun = np.bincount(self._block(block).sources[:rest], minlength=len(self._quotas))
        return block * self._quotas + begun

    def _block(self, number: int) -> Samples:
        if number not in self._blocks:
            self._blocks = dict(list(self._blocks.items())[1 - _KEPT :])
            self._blocks[number] = self._make_block(number)
        return self._blocks[number]

    def _make_block(self, number: int) -> Samples:
        phases = mix(np.array(self._keys, np.uint64) ^ mix(np.array([number], np.uint64))) / 2**64
        times = [(np.arange(quota) + phase) / quota for quota, phase in zip(self._quotas, phases, strict=True)]
        windows = [
            shuffle.at(number * quota + np.arange(quota))
            for shuffle, quota in zip(self._shuffles, self._quotas, strict=True)
        ]
        order = np.argsort(np.concatenate(times), kind="stable")
        sources = np.repeat(np.arange(len(self._quotas)), self._quotas)
        return Samples(sources[order], np.concatenate(windows)[order])


class ShuffledWindows:
    """The numbers 0 to size - 1 again and again, in another order each time.

    The order is a Feistel network, which permutes the next larger power of 4 (Luby and Rackoff 1988), with cycle
    walking, which takes what falls outside through it again (Black and Rogaway 2002, "Ciphers with
    arbitrary finite domains").
    """

    def __init__(self, size: int, key: int) -> None:
        self._size = size
        self._key = np.uint64(key)
        half = max(((size - 1).bit_length() + 1) // 2, 1)
        self._half = np.uint64(half)
        self._mask = np.uint64((1 << half) - 1)

    def at(self, positions: Numbers) -> Numbers:
        """The window at each position of the endless sequence."""
        epochs, places = np.divmod(positions, self._size)
        keys = mix(self._key ^ mix(epochs.astype(np.uint64)))
        values = self._permute(places.astype(np.uint64), keys)
        outside = np.flatnonzero(values >= self._size)
        while len(outside):
            values[outside] = self._permute(values[outside], keys[outside])
            outside = outside[values[outside] >= self._size]
        return values.astype(np.int64)

    def _permute(self, values: Words, keys: Words) -> Words:
        left, right = values >> self._half, values & self._mask
        for number in range(_ROUNDS):
            round_keys = keys + np.uint64(number * _GOLDEN % 2**64)
            left, right = right, left ^ (mix(right ^ mix(round_keys)) & self._mask)
        return left << self._half | right


def mix(words: Words) -> Words:
    """Scatter 64-bit words: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    words = words + np.uint64(_GOLDEN)
    words = (words ^ words >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ words >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return words ^ words >> np.uint64(31)


def quotas(weights: Sequence[float]) -> Numbers:
    """How many of `BLOCK` samples each source gets, by the largest-remainder method, and at least one.

    Raises UserError where there are more sources than samples in a block.
    """
    if len(weights) > BLOCK:
        raise UserError(f"{len(weights)} sources cannot be mixed: {BLOCK} are possible")
    exact = np.array(weights) / sum(weights) * BLOCK
    shares = np.floor(exact).astype(np.int64)
    first = np.argsort(shares - exact, kind="stable")[: BLOCK - shares.sum()]
    shares[first] += 1
    for starved in np.flatnonzero(shares == 0):
        shares[np.argmax(shares)] -= 1
        shares[starved] = 1
    return shares


def _key(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "little")
