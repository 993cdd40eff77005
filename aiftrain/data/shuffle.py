"""Pseudo-random orders of the windows of a source, epoch after epoch: pure functions of a key, with nothing stored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Words = NDArray[np.uint64]

_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15
_POOLS = 32  # that an epoch has where units hold several windows: a change of length gives up a part of one
_MOST_UNITS = 4096  # of a pool


class ShuffledNumbers:
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
        """The number at each position of the endless sequence."""
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


class WindowOrder:
    """The endless order of a source's windows of one length; every epoch has each window once.

    The source is cut into `units`, of `per_unit` windows each. An epoch shuffles the units and takes them by the pool,
    and the windows of a pool are shuffled with each other. So what has been read is always whole pools and a part of
    one, and windows of another length can go on behind them (`units_before`). One window a unit needs no pools.
    """

    def __init__(self, units: int, per_unit: int, key: int) -> None:
        self._count, self.per_unit = units, per_unit
        self.windows = units * per_unit  # of an epoch
        self._units = ShuffledNumbers(units, key)
        self._pool = 1 if per_unit == 1 else min(max(units // _POOLS, 1), _MOST_UNITS)  # units
        rest = units % self._pool
        self._pools, self._pooled = units // self._pool, (units - rest) * per_unit  # whole ones, and windows in them
        inner = int(mix(np.array([key], np.uint64))[0])
        self._in_pool = ShuffledNumbers(self._pool * per_unit, inner)
        self._in_rest = ShuffledNumbers(max(rest * per_unit, 1), inner)

    def at(self, positions: Numbers) -> Numbers:
        """The window at each position."""
        if self.per_unit == 1:
            return self._units.at(positions)
        epochs, places = np.divmod(positions, self.windows)
        ordinals, windows = np.divmod(self._stirred(epochs, places), self.per_unit)
        return self._units.at(epochs * self._count + ordinals) * self.per_unit + windows

    def units_before(self, position: int) -> int:
        """How many units are used up before a position, the begun pool among them."""
        epochs, place = divmod(position, self.windows)
        pools = -(-place // (self._pool * self.per_unit))
        return epochs * self._count + min(pools * self._pool, self._count)

    def _stirred(self, epochs: Numbers, places: Numbers) -> Numbers:
        """The places of an epoch with those of each pool shuffled."""
        size = self._pool * self.per_unit
        pools, inside = np.divmod(places, size)
        stirred = pools * size + self._in_pool.at((epochs * self._pools + pools) * size + inside)
        rest = self.windows - self._pooled
        if rest:
            last = np.flatnonzero(places >= self._pooled)
            stirred[last] = self._pooled + self._in_rest.at(epochs[last] * rest + places[last] - self._pooled)
        return stirred


def mix(words: Words) -> Words:
    """Scatter 64-bit words: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    words = words + np.uint64(_GOLDEN)
    words = (words ^ words >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ words >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return words ^ words >> np.uint64(31)
