"""Draws a run's loss curve: training, its running mean, validation of each source, and the unigram line to beat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aiftrain.errors import UserError
from aiftrain.report.metrics import Metrics, read_metrics
from aiftrain.report.picture import new_figure, plain, save
from aiftrain.run.folder import RunFolder
from aiftrain.run.process import has_package

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SMOOTH_OVER = 40  # the running mean covers a 40th of the run
_MOST_POINTS = 4000  # more cannot be told apart at this size
_TRAIN, _UNIGRAM = "#1f5fa8", "#8a8a8a"


def draw(folder: RunFolder) -> Path:
    """Write loss.png into the run folder and return its path.

    Raises UserError where matplotlib is missing or nothing has been measured, MachineError where the
    picture cannot be written.
    """
    if not has_package("matplotlib"):
        raise UserError("no loss curve: it needs matplotlib (python -m pip install matplotlib)")
    metrics = read_metrics(folder)
    if not metrics.train:
        raise UserError(f"no loss curve: {folder.path} has no measured step yet")
    figure, axes = _canvas(folder)
    _plot_training(axes, metrics)
    _plot_validation(axes, metrics)
    _plot_unigram(axes, folder)
    axes.legend(frameon=False, fontsize=9, ncols=1 + len(axes.lines) // 12)  # many languages need columns
    save(figure, folder.picture)
    return folder.picture


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the last `window` values at each place, of fewer at the beginning; what is no number is left out."""
    counted = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(counted, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(counted)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    number = counts[ends] - counts[starts]
    mean: np.ndarray = np.where(number, (sums[ends] - sums[starts]) / np.maximum(number, 1), np.nan)
    return mean


def unigram_loss(folder: RunFolder) -> float | None:
    """The loss (nats a token) of a model that knows only how often each token occurs, over the mixture."""
    try:
        sources = json.loads(folder.data_json.read_text(encoding="utf-8"))["sources"].values()
        weights = [float(source["weight"]) for source in sources]
        losses = [float(source["unigram_loss"]) for source in sources]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return float(np.average(losses, weights=weights)) if sum(weights) > 0 else None


def _canvas(folder: RunFolder) -> tuple[Figure, Axes]:
    figure = new_figure(8, 4.5)
    axes = figure.add_subplot()
    plain(axes)
    axes.set_title(folder.read_spec().recipe, loc="left", fontsize=12)
    axes.set_xlabel("step")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylabel("loss (nats per token)")
    return figure, axes


def _plot_training(axes: Axes, metrics: Metrics) -> None:
    steps = np.array([record.step for record in metrics.train])
    losses = np.array([record.loss for record in metrics.train])
    smooth = running_mean(losses, max(1, len(losses) // _SMOOTH_OVER))
    thin = slice(None, None, -(-len(steps) // _MOST_POINTS))
    axes.plot(steps[thin], losses[thin], color=_TRAIN, alpha=0.25, linewidth=0.8)
    axes.plot(
        steps[thin], smooth[thin], color=_TRAIN, linewidth=1.8, label=f"training, running mean ({smooth[-1]:.2f})"
    )


def _plot_validation(axes: Axes, metrics: Metrics) -> None:
    curves: dict[str, list[tuple[int, float]]] = {}
    for record in metrics.validation:
        for source, loss in record.losses.items():
            curves.setdefault(source, []).append((record.step, loss))
    for number, (source, points) in enumerate(sorted(curves.items()), start=1):
        steps, losses = zip(*points, strict=True)
        label = f"validation {source} ({losses[-1]:.2f})"
        axes.plot(steps, losses, color=f"C{number}", marker="o", markersize=3.5, linewidth=1.2, label=label)


def _plot_unigram(axes: Axes, folder: RunFolder) -> None:
    loss = unigram_loss(folder)
    if loss is not None:
        axes.axhline(loss, color=_UNIGRAM, linestyle="--", linewidth=1, label=f"unigram model ({loss:.2f})")
