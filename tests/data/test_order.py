"""The order of samples: a pure function of (seed, number), exact and fast at any place."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiftrain.data.order import BLOCK, Mixing, SampleOrder, quotas
from aiftrain.data.shuffle import ShuffledNumbers
from aiftrain.errors import UserError

_KEYS = st.integers(0, 2**64 - 1)
_WEIGHTS = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=12)


def _order(weights: list[float], windows: list[int], seed: int = 0) -> SampleOrder:
    """Windows of one token: a source has as many."""
    names = [f"s{i}" for i in range(len(weights))]
    mixing = Mixing(first_sample=0, weights=dict(zip(names, weights, strict=True)), length=1, unit=1)
    return SampleOrder(dict(zip(names, windows, strict=True)), [mixing], seed)


@given(size=st.integers(1, 3000), key=_KEYS, epoch=st.integers(0, 1000))
def test_each_epoch_visits_every_window_once(size: int, key: int, epoch: int) -> None:
    windows = ShuffledNumbers(size, key).at(epoch * size + np.arange(size))
    assert sorted(windows.tolist()) == list(range(size))


def test_epochs_differ_from_each_other() -> None:
    shuffle = ShuffledNumbers(1000, key=1)
    first, second = shuffle.at(np.arange(1000)), shuffle.at(np.arange(1000, 2000))
    assert (first == second).mean() < 0.02
    assert (first == np.arange(1000)).mean() < 0.02


def test_windows_are_spread_like_random_ones() -> None:
    """Neighbours in the order lie a third of the corpus apart on average, as two random places do."""
    windows = ShuffledNumbers(100_000, key=2).at(np.arange(100_000))
    assert np.abs(np.diff(windows)).mean() / 100_000 == pytest.approx(1 / 3, abs=0.01)
    assert abs(np.corrcoef(windows[:-1], windows[1:])[0, 1]) < 0.02


@settings(deadline=None)
@given(weights=_WEIGHTS, samples=st.integers(0, 3 * BLOCK), seed=st.integers(0, 2**32))
def test_counts_agree_with_counting(weights: list[float], samples: int, seed: int) -> None:
    order = _order(weights, [1000] * len(weights), seed)
    counted = np.bincount(order.samples(0, samples).sources, minlength=len(weights))
    assert order.counts(samples)[0].tolist() == counted.tolist()


@settings(deadline=None)
@given(weights=_WEIGHTS, samples=st.integers(1, 3 * BLOCK))
def test_every_prefix_is_close_to_the_weights(weights: list[float], samples: int) -> None:
    (counts,) = _order(weights, [1000] * len(weights)).counts(samples)
    wanted = quotas(weights) / BLOCK * samples
    assert np.abs(counts - wanted).max() <= len(weights) + 1


@given(weights=_WEIGHTS)
def test_quotas_fill_a_block_and_honour_the_weights(weights: list[float]) -> None:
    shares = quotas(weights)
    exact = np.array(weights) / sum(weights) * BLOCK
    assert shares.sum() == BLOCK
    assert shares.min() >= 1
    assert np.abs(shares - exact).max() <= len(weights)


def test_a_source_of_tiny_weight_is_still_heard() -> None:
    assert quotas([1.0, 1e-9]).tolist() == [BLOCK - 1, 1]


def test_a_source_of_no_weight_is_not_heard() -> None:
    assert quotas([1.0, 0.0, 1e-9]).tolist() == [BLOCK - 1, 0, 1]


def test_too_many_sources_are_refused() -> None:
    with pytest.raises(UserError, match="4097 sources"):
        quotas([1.0] * (BLOCK + 1))


@settings(deadline=None)
@given(start=st.integers(0, 2 * BLOCK), sizes=st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_samples_do_not_depend_on_how_they_are_asked_for(start: int, sizes: list[int]) -> None:
    order, fresh = _order([0.5, 0.3, 0.2], [700, 40, 9]), _order([0.5, 0.3, 0.2], [700, 40, 9])
    together = order.samples(start, sum(sizes))
    begins = start + np.cumsum(sizes) - sizes
    pieces = [fresh.samples(int(begin), size) for begin, size in zip(begins, sizes, strict=True)]
    assert np.array_equal(together.sources, np.concatenate([piece.sources for piece in pieces]))
    assert np.array_equal(together.windows, np.concatenate([piece.windows for piece in pieces]))


def test_epochs_of_each_source_are_exact_in_the_mixture() -> None:
    order = _order([0.7, 0.3], [50, 11])
    samples = order.samples(0, 20_000)
    for source, size in enumerate((50, 11)):
        windows = samples.windows[samples.sources == source]
        epochs = windows[: len(windows) // size * size].reshape(-1, size)
        assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(size), (len(epochs), 1)))


def test_seeds_and_sources_have_orders_of_their_own() -> None:
    one, other = _order([1, 1], [1000, 1000], seed=1), _order([1, 1], [1000, 1000], seed=2)
    samples = one.samples(0, 1000)
    assert (samples.windows == other.samples(0, 1000).windows).mean() < 0.02
    first, second = samples.windows[samples.sources == 0], samples.windows[samples.sources == 1]
    assert (first[:400] == second[:400]).mean() < 0.02


def test_a_huge_corpus_is_reached_at_once() -> None:
    """10**12 windows, at a place in the third epoch: one block is made, and that is all."""
    order = _order([0.9, 0.1], [10**12, 10**10])
    began = time.perf_counter()
    samples = order.samples(3 * 10**12 + 17, 64)
    (counts,) = order.counts(3 * 10**12 + 17)
    assert time.perf_counter() - began < 0.2
    assert samples.windows.max() > 10**9
    assert counts.sum() == 3 * 10**12 + 17
    assert counts[0] / counts.sum() == pytest.approx(0.9, abs=1e-3)
