"""The loss curve: drawn from what a run measured, and honest where it cannot be."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.errors import UserError
from aiftrain.report.curve import draw, running_mean, unigram_loss
from aiftrain.run.folder import RunFolder, append_line


def measured(folder: RunFolder, steps: int) -> None:
    for step in range(1, steps + 1):
        loss = 3.0 + 5.0 * math.exp(-step / 60) + 0.2 * math.sin(step * 1.7)
        append_line(folder.metrics, {"step": step, "attempt": 1, "time": step, "tokens": step, "loss": loss})
        if step % 50 == 0:
            losses = {"de": loss + 0.1, "français": loss + 0.3}
            append_line(folder.metrics, {"step": step, "attempt": 1, "time": step, "validation": losses})
    sources = {"de": {"weight": 0.75, "unigram_loss": 6.0}, "français": {"weight": 0.25, "unigram_loss": 7.0}}
    folder.write_json(folder.data_json, {"sources": sources})


def test_draws_a_picture(run_folder: RunFolder) -> None:
    measured(run_folder, 300)
    picture = draw(run_folder)
    assert picture == run_folder.picture
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
    assert not list(run_folder.path.glob("*.part"))


def test_draws_without_validation_data_or_finite_losses(run_folder: RunFolder) -> None:
    append_line(run_folder.metrics, {"step": 1, "attempt": 1, "time": 1, "tokens": 1, "loss": None})
    assert draw(run_folder).is_file()


def test_nothing_measured_is_said(run_folder: RunFolder) -> None:
    with pytest.raises(UserError, match="no measured step"):
        draw(run_folder)


def test_missing_matplotlib_is_said(run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install matplotlib"):
        draw(run_folder)


def test_the_unigram_line_is_the_mixtures(run_folder: RunFolder) -> None:
    assert unigram_loss(run_folder) is None
    measured(run_folder, 1)
    assert unigram_loss(run_folder) == pytest.approx(6.25)
    run_folder.write(run_folder.data_json, "[]")
    assert unigram_loss(run_folder) is None


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=50), st.integers(1, 60))
def test_running_mean_is_the_mean_of_the_last_values(values: list[float], window: int) -> None:
    expected = [np.mean(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))]
    assert running_mean(np.array(values), window) == pytest.approx(expected, abs=1e-6)


def test_one_loss_that_is_no_number_does_not_spoil_the_mean() -> None:
    mean = running_mean(np.array([math.nan, 2.0, math.nan, 4.0, 6.0]), 2)
    assert np.array_equal(mean, [math.nan, 2.0, 2.0, 4.0, 5.0], equal_nan=True)
