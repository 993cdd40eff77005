"""The order of samples through stages: mixtures and lengths change, and no source is read twice in an epoch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiftrain.data.order import BLOCK, Mixing, SampleOrder, quotas
from aiftrain.data.shuffle import Numbers, WindowOrder

_KEYS = st.integers(0, 2**64 - 1)


@st.composite
def orders(draw: st.DrawFn) -> tuple[dict[str, int], list[Mixing], list[int]]:
    """Two or three sources of some hundred tokens, and stretches of windows of 1, 2, 4 or 8 of them."""
    tokens = {f"s{i}": draw(st.integers(8, 400)) for i in range(draw(st.integers(2, 3)))}
    stretches, ends, first = [], [], 0
    for _ in range(draw(st.integers(1, 4))):
        weights = {name: draw(st.sampled_from([0.0, 0.1, 1.0])) for name in tokens} | {"s0": 0.5}
        stretches.append(Mixing(first, weights, draw(st.sampled_from([1, 2, 4, 8])), unit=8))
        first += draw(st.integers(1, 300))
        ends.append(first)
    return tokens, stretches, ends


def _read(tokens: dict[str, int], stretches: list[Mixing], ends: list[int]) -> dict[str, list[Numbers]]:
    """Of each source, the tokens that are read in each stretch, in order."""
    order = SampleOrder(tokens, stretches, seed=1)
    found: dict[str, list[Numbers]] = {name: [] for name in tokens}
    for mixing, end in zip(stretches, ends, strict=True):
        samples = order.samples(mixing.first_sample, end - mixing.first_sample)
        for number, name in enumerate(tokens):
            windows = samples.windows[samples.sources == number]
            found[name].append((windows[:, None] * mixing.length + np.arange(mixing.length)).ravel())
    return found


@settings(deadline=None, max_examples=200)
@given(drawn=orders())
def test_no_token_is_read_twice_before_the_epoch_ends(
    drawn: tuple[dict[str, int], list[Mixing], list[int]],
) -> None:
    """How often the tokens of a source were read differs by what a change of length may give up of each epoch."""
    tokens, stretches, ends = drawn
    for name, pieces in _read(tokens, stretches, ends).items():
        units = tokens[name] // 8
        changes = sum(before.length != after.length for before, after in pairwise(stretches))
        times = np.bincount(np.concatenate(pieces), minlength=units * 8)
        used = sum(len(piece) for piece in pieces)
        assert len(times) == units * 8, "nothing beyond the last whole unit"
        given_up = changes * 8 * max(1, units // 32)
        assert times.max() <= -(-(used + given_up) // (units * 8))


@settings(deadline=None)
@given(drawn=orders())
def test_every_prefix_of_a_stretch_is_close_to_its_weights(
    drawn: tuple[dict[str, int], list[Mixing], list[int]],
) -> None:
    tokens, stretches, ends = drawn
    order, mixing = SampleOrder(tokens, stretches, seed=1), stretches[-1]
    count = ends[-1] - mixing.first_sample
    counted = np.bincount(order.samples(mixing.first_sample, count).sources, minlength=len(tokens))
    wanted = quotas([mixing.weights[name] for name in tokens]) / BLOCK * count
    assert np.abs(counted - wanted).max() <= len(tokens) + 1
    assert order.counts(ends[-1])[-1].tolist() == counted.tolist()


@settings(deadline=None)
@given(drawn=orders(), data=st.data())
def test_any_sample_is_reached_alone(
    drawn: tuple[dict[str, int], list[Mixing], list[int]], data: st.DataObject
) -> None:
    """As a resumed run reaches it: nothing of what came before was asked for."""
    tokens, stretches, ends = drawn
    number = data.draw(st.integers(0, len(stretches) - 1))
    first, end = stretches[number].first_sample, ends[number]
    sample = data.draw(st.integers(first, end - 1))
    together = SampleOrder(tokens, stretches, seed=1).samples(first, end - first)
    alone = SampleOrder(tokens, stretches, seed=1).samples(sample, 1)
    assert alone.sources[0] == together.sources[sample - first]
    assert alone.windows[0] == together.windows[sample - first]


def test_a_change_of_weights_alone_gives_up_nothing() -> None:
    """All windows of the epoch, each once, though the mixture changes in its middle."""
    tokens = {"a": 100, "b": 100}
    stretches = [Mixing(0, {"a": 1.0, "b": 1.0}, 1, 1), Mixing(100, {"a": 1.0}, 1, 1)]
    read = _read(tokens, stretches, [100, 150])
    assert sorted(np.concatenate(read["a"]).tolist()) == list(range(100))
    assert len(read["b"][1]) == 0


def test_the_past_does_not_know_what_stages_come() -> None:
    tokens = {"a": 1000, "b": 300}
    first = Mixing(0, {"a": 0.7, "b": 0.3}, 2, 8)
    later = [Mixing(500, {"b": 1.0}, 8, 8), Mixing(520, {"a": 1.0}, 4, 8)]
    alone, staged = SampleOrder(tokens, [first], seed=3), SampleOrder(tokens, [first, *later], seed=3)
    assert np.array_equal(alone.samples(0, 500).windows, staged.samples(0, 500).windows)


def test_a_length_that_does_not_divide_the_unit_begins_an_epoch() -> None:
    """All 80 tokens are read again in windows of 5, though only 40 of them were in windows of 4."""
    read = _read({"a": 80}, [Mixing(0, {"a": 1.0}, 4, 8), Mixing(10, {"a": 1.0}, 5, 5)], [10, 26])["a"]
    assert len(read[0]) == 40
    assert sorted(read[1].tolist()) == list(range(80))


@given(units=st.integers(1, 200), per_unit=st.integers(1, 8), key=_KEYS, epoch=st.integers(0, 50))
def test_an_epoch_in_pools_has_every_window_once(units: int, per_unit: int, key: int, epoch: int) -> None:
    order = WindowOrder(units, per_unit, key)
    windows = order.at(epoch * order.windows + np.arange(order.windows))
    assert sorted(windows.tolist()) == list(range(units * per_unit))


@given(units=st.integers(1, 200), per_unit=st.integers(1, 8), key=_KEYS, data=st.data())
def test_what_is_read_of_an_epoch_lies_in_the_units_used_up(
    units: int, per_unit: int, key: int, data: st.DataObject
) -> None:
    order, whole = WindowOrder(units, per_unit, key), WindowOrder(units, 1, key)
    position = data.draw(st.integers(0, order.windows))
    used = whole.at(np.arange(order.units_before(position)))
    assert set((order.at(np.arange(position)) // per_unit).tolist()) <= set(used.tolist())
    assert order.units_before(position) * per_unit - position < max(1, units // 32) * per_unit


def test_windows_of_a_pool_come_from_all_over_the_source() -> None:
    windows = WindowOrder(100_000, 8, key=2).at(np.arange(50_000))
    assert np.abs(np.diff(windows)).mean() / 800_000 == pytest.approx(1 / 3, abs=0.01)
    assert (np.diff(windows) == 1).mean() < 0.001
