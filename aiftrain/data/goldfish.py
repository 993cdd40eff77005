"""The goldfish loss: no loss of one token in k, so that no text is learned by heart (arXiv 2406.10209).

Which tokens, a hash of the tokens before each decides, so that a passage has the same gaps wherever it is met again:
in another document, window or epoch, at another sequence length, on other ranks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aiftrain.data.shuffle import Words, mix
from aiftrain.run.corpus import GoldfishSpec

_BASE = 0x9E3779B97F4A7C15  # odd, and so invertible modulo 2**64
_INVERSE = pow(_BASE, -1, 2**64)


def left_out(
    tokens: NDArray[np.int64], starts: NDArray[np.bool_], known_from: NDArray[np.int64], spec: GoldfishSpec
) -> NDArray[np.bool_]:
    """Which tokens no loss is taken of, [n, m - width], of all but the first `width` of each row.

    tokens [n, m]; starts [n, m], where documents begin; known_from [n], the first column of each row that holds text.
    A token is left out where a hash of the `width` tokens before it falls below 2**64 / one_in. Where its document has
    not as many before it, it stays.
    """
    width = spec.width
    documents = np.cumsum(starts, axis=1)
    one_document = documents[:, width:] == documents[:, :-width]
    known = np.arange(tokens.shape[1] - width) >= known_from[:, None]
    gaps: NDArray[np.bool_] = one_document & known & (_hashes(tokens, width) < np.uint64(2**64 // spec.one_in))
    return gaps


def _hashes(tokens: NDArray[np.int64], width: int) -> Words:
    """Of the `width` tokens before each but the first `width`: sum of mix(token) * base ** distance, modulo 2**64."""
    rising, falling = (_powers(base, tokens.shape[1]) for base in (_BASE, _INVERSE))
    sums = np.cumsum(mix(tokens.astype(np.uint64)) * falling, axis=1)
    before = np.pad(sums, ((0, 0), (1, 0)))[:, :-1]
    return mix((before[:, width:] - before[:, :-width]) * rising[width:])


def _powers(base: int, count: int) -> Words:
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)
