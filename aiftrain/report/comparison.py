"""Draws one run at several sites: days and energy, each with its range, and the bill in the site's own units."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aiftrain.report.picture import new_figure, plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KNOWN, _GUESSED, _LATE = "#1f5fa8", "#9dbcdc", "#b04a2f"
_WIDE = 8.0  # from the least to the most, beyond which a logarithmic scale is easier to read


@dataclass(frozen=True)
class Span:
    """A figure and its range."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True)
class Bar:
    """One site. `mwh` None: nobody documents the power. `measured`: published runs on its hardware are known."""

    name: str
    days: Span
    mwh: Span | None
    bill: str
    measured: bool


def draw_comparison(
    bars: Sequence[Bar], *, title: str, deadline: float | None, left_out: Sequence[str], file: Path
) -> None:
    """Write the picture, the fastest site above. `left_out` are sites of which nothing is known; at least one bar."""
    ordered = sorted(bars, key=lambda bar: bar.days.expected)
    figure = new_figure(9.5, 1.9 + 0.34 * len(ordered))
    days, energy, bill = figure.subplots(1, 3, sharey=True, width_ratios=(4, 4, 2.2))
    _ranges(days, ordered, lambda bar: bar.days, "days")
    _ranges(energy, ordered, lambda bar: bar.mwh, "MWh of the devices")
    _bills(bill, ordered)
    if deadline is not None:
        days.axvline(deadline, color=_LATE, linestyle="--", linewidth=1, zorder=0.5)
    days.set_yticks(range(len(ordered)), [bar.name for bar in ordered])
    days.invert_yaxis()
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.supxlabel(_caption(ordered, deadline, left_out), x=0.01, ha="left", fontsize=8, color="#555555")
    save(figure, file)


def _ranges(axes: Axes, bars: Sequence[Bar], span_of: Callable[[Bar], Span | None], label: str) -> None:
    plain(axes)
    spans = [span_of(bar) for bar in bars]
    known = [span for span in spans if span is not None]
    for place, (bar, span) in enumerate(zip(bars, spans, strict=True)):
        color = _KNOWN if bar.measured else _GUESSED
        if span is None:
            axes.annotate("unknown", (0.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
            continue
        axes.plot([span.low, span.high], [place, place], color=color, linewidth=6, alpha=0.35, solid_capstyle="butt")
        axes.plot(span.expected, place, "o", color=color, markersize=6)
        at = (span.expected, place)
        axes.annotate(_figure(span.expected), at, (0, 5), textcoords="offset points", ha="center", fontsize=7.5)
    _scale(axes, known)
    axes.set_xlabel(label)
    axes.set_ylim(-0.7, len(bars) - 0.4)


def _scale(axes: Axes, spans: Sequence[Span]) -> None:
    """From 0, or logarithmic where sites differ very much."""
    axes.xaxis.set_major_formatter(lambda value, _: _figure(value))
    if not spans:
        axes.set_xticks([])
        return
    if max(span.high for span in spans) > _WIDE * min(span.low for span in spans):
        from matplotlib.ticker import LogLocator, NullFormatter

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(lambda value, _: _figure(value))
    else:
        axes.set_xlim(left=0)


def _bills(axes: Axes, bars: Sequence[Bar]) -> None:
    axes.set_axis_off()
    axes.set_title("bill", fontsize=10, loc="left")
    for place, bar in enumerate(bars):
        axes.annotate(bar.bill, (0.0, place), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)


def _caption(bars: Sequence[Bar], deadline: float | None, left_out: Sequence[str]) -> str:
    notes = ["bands: days of nine runs in ten; energy from 76 to 100 % of the power limits"]
    if not all(bar.measured for bar in bars):
        notes.append("pale: no published runs on this hardware are behind it")
    if deadline is not None:
        notes.append(f"dashed: the deadline of {deadline:g} days")
    if left_out:
        notes.append(f"left out, for something is unknown or in the way: {', '.join(left_out)}")
    return "\n".join(line for note in notes for line in textwrap.wrap(note, 125, break_on_hyphens=False))


def _figure(number: float) -> str:
    """Three figures: `12.4`, `1,830`."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
