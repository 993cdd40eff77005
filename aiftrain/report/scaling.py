"""Draws how a run scales: tokens a second and efficiency over the number of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aiftrain.report.picture import new_figure, plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE, _BAND, _IDEAL, _LIMIT, _CHOSEN = "#1f5fa8", "#1f5fa8", "#8a8a8a", "#b04a2f", "#e08214"
_MOST_TICKS = 9
_LIMIT_IN_SIGHT = 3.0  # times the largest number of nodes: limits further off are left out


@dataclass(frozen=True)
class Point:
    """Tokens a second on so many nodes: expected, and the range of nine runs in ten."""

    nodes: int
    tokens_per_s: float
    low: float
    high: float


@dataclass(frozen=True)
class Limit:
    """A number of nodes that something does not go beyond: a queue, the machine, the global batch."""

    name: str
    nodes: int


def draw_scaling(points: Sequence[Point], limits: Sequence[Limit], *, chosen: int, title: str, file: Path) -> None:
    """Write the picture. `points` by rising nodes, at least one; `chosen` is the number of nodes to point out."""
    figure = new_figure(8, 6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _speed(above, points, chosen)
    _efficiency(below, points, chosen)
    _mark_limits(above, below, points, limits)
    _number_nodes(below, points)
    above.set_title(title, loc="left", fontsize=11)
    above.legend(frameon=False, fontsize=9, loc="upper left")
    save(figure, file)


def _speed(axes: Axes, points: Sequence[Point], chosen: int) -> None:
    plain(axes)
    nodes, each = [point.nodes for point in points], points[0].tokens_per_s / points[0].nodes
    ideal = [each * count for count in nodes]
    axes.fill_between(
        nodes,
        [point.low for point in points],
        [point.high for point in points],
        color=_BAND,
        alpha=0.15,
        linewidth=0,
        label="nine runs in ten",
    )
    axes.plot(nodes, ideal, color=_IDEAL, linestyle=":", linewidth=1.2, label="proportional")
    axes.plot(nodes, [point.tokens_per_s for point in points], color=_LINE, marker="o", markersize=4, label="predicted")
    for point in points:
        if point.nodes == chosen:
            label = f"{chosen:,} nodes: {_short(point.tokens_per_s)} tokens/s"
            axes.plot(chosen, point.tokens_per_s, "o", color=_CHOSEN, markersize=9, zorder=5, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylabel("tokens per second")
    axes.yaxis.set_major_formatter(lambda value, _: _short(value))
    axes.yaxis.set_minor_formatter("")


def _efficiency(axes: Axes, points: Sequence[Point], chosen: int) -> None:
    plain(axes)
    each = [point.tokens_per_s / point.nodes for point in points]
    shares = [100 * one / each[0] for one in each]
    axes.plot([point.nodes for point in points], shares, color=_LINE, marker="o", markersize=4)
    for point, share in zip(points, shares, strict=True):
        if point.nodes == chosen:
            axes.plot(chosen, share, "o", color=_CHOSEN, markersize=9, zorder=5)
    axes.axhline(100, color=_IDEAL, linestyle=":", linewidth=1.2)
    axes.set_ylim(min(75.0, 0.95 * min(shares)), max(105.0, 1.02 * max(shares)))
    axes.set_ylabel(f"efficiency, % of {_nodes(points[0].nodes)}")
    axes.set_xlabel("nodes (the global batch stays the same)")


def _mark_limits(above: Axes, below: Axes, points: Sequence[Point], limits: Sequence[Limit]) -> None:
    """Lines through both halves, named in the upper one below the curve; limits at the same place share a line."""
    together: dict[int, list[str]] = {}
    for limit in limits:
        if points[0].nodes <= limit.nodes <= _LIMIT_IN_SIGHT * points[-1].nodes:
            together.setdefault(limit.nodes, []).append(limit.name)
    for nodes, names in together.items():
        for axes in (above, below):
            axes.axvline(nodes, color=_LIMIT, linestyle="--", linewidth=1)
        above.annotate(
            f"{', '.join(names)}: {nodes:,}",
            (nodes, 0.03),
            xycoords=("data", "axes fraction"),
            xytext=(-3, 0),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="bottom",
            fontsize=8,
            color=_LIMIT,
        )


def _number_nodes(axes: Axes, points: Sequence[Point]) -> None:
    """Ticks at numbers of nodes that were worked out, not too many, the last one among them."""
    step = -(-len(points) // _MOST_TICKS)
    axes.set_xticks([point.nodes for point in points][::-1][::step])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.minorticks_off()


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count:,} nodes"


def _short(number: float) -> str:
    """`2.5 M`, `930 k`."""
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            return f"{number / scale:.3g} {letter}"
    return f"{number:.3g}"
