"""The mixture's weights and the loss of a unigram model of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aiftrain.data.corpus import mixture_weights, unigram_losses
from aiftrain.run.corpus import DataSpec, SourceSpec


def _data(temperature: float = 1.0, **weights: float | None) -> DataSpec:
    sources = {name: SourceSpec(path="unused", weight=weight) for name, weight in weights.items()}
    return DataSpec(name="test", sources=sources, temperature=temperature)


def test_temperature_one_takes_sources_by_size() -> None:
    weights = mixture_weights(_data(de=None, mt=None), {"de": 900, "mt": 100})
    assert weights == pytest.approx({"de": 0.9, "mt": 0.1})


def test_a_high_temperature_brings_small_sources_up() -> None:
    weights = mixture_weights(_data(2.0, de=None, mt=None), {"de": 900, "mt": 100})
    assert weights == pytest.approx({"de": 0.75, "mt": 0.25})


def test_given_weights_are_normalised_whatever_the_sizes() -> None:
    weights = mixture_weights(_data(de=6, mt=2), {"de": 1, "mt": 100})
    assert weights == {"de": 0.75, "mt": 0.25}


def test_unigram_loss_by_hand() -> None:
    """Three entries; training counts (3, 1, 0) and (0, 0, 2) with add-one smoothing, mixed half and half."""
    counts = {"a": np.array([[3, 1, 0], [1, 0, 1]]), "b": np.array([[0, 0, 2], [0, 0, 0]])}
    mixture = [(4 / 7 + 1 / 5) / 2, (2 / 7 + 1 / 5) / 2, (1 / 7 + 3 / 5) / 2]
    losses = unigram_losses(counts, {"a": 0.5, "b": 0.5})
    assert losses["a"] == pytest.approx(-(math.log(mixture[0]) + math.log(mixture[2])) / 2)  # its validation tokens
    assert losses["b"] == pytest.approx(-math.log(mixture[2]))  # it has none: its training tokens


def test_a_uniform_source_has_the_loss_of_a_fair_die() -> None:
    counts = {"a": np.full((2, 64), 1000)}
    assert unigram_losses(counts, {"a": 1.0})["a"] == pytest.approx(math.log(64))
