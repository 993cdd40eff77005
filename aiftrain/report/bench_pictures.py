"""The pictures of a bench, as SVG to stand in HTML: products by size, links by message, strategies side by side."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aiftrain.report.bench import duration, size, step_share
from aiftrain.report.picture import new_figure, plain
from aiftrain.run.bench import Bench, Product, Transfer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#1f5fa8", "#e08214", "#3a8a4d", "#b04a2f", "#7a5aa6")
_PROMISE = "#8a8a8a"


def products_picture(bench: Bench, promised: float | None) -> str:
    """TFLOP/s over the size of products, a line a precision; `promised` in TFLOP/s is of bf16."""
    figure = new_figure(8, 4)
    axes = figure.add_subplot()
    plain(axes)
    for colour, precision in zip(
        _COLOURS, dict.fromkeys(product.precision for product in bench.products), strict=False
    ):
        of_precision = [product for product in bench.products if product.precision == precision]
        square = [product for product in of_precision if product.name == "square"]
        others = [product for product in of_precision if product.name != "square"]
        axes.plot(
            [_side(each) for each in square], [each.tflops for each in square], "o-", color=colour, label=precision
        )
        axes.plot([_side(each) for each in others], [each.tflops for each in others], "x", color=colour)
    axes.plot([], [], "x", color=_PROMISE, label="the model's own products")
    _promise(axes, promised, "TFLOP/s, the profile's measured rate at bf16")
    _axes(axes, "side of a square product of as many FLOPs", "TFLOP/s of one rank", _number, _number)
    return svg(figure)


def links_picture(transfers: Sequence[Transfer], promised: float | None) -> str:
    """Bandwidth and time over the message's size, a line an operation, of transfers in one scope."""
    figure = new_figure(8, 3.8)
    rates, times = figure.subplots(1, 2)
    for colour, operation in zip(_COLOURS, dict.fromkeys(each.operation for each in transfers), strict=False):
        sizes = [each for each in transfers if each.operation == operation]
        octets = [each.bytes for each in sizes]
        rates.plot(octets, [each.gb_per_s for each in sizes], "o-", color=colour, markersize=4, label=operation)
        times.plot(octets, [each.seconds for each in sizes], "o-", color=colour, markersize=4)
    plain(rates)
    plain(times)
    _promise(rates, promised, "GB/s, the profile's figure")
    _axes(rates, "message", "GB/s of one rank's link, one direction", size, _number)
    _axes(times, "message", "time of one call", size, duration)
    for axes in (rates, times):
        axes.set_xticks([each.bytes for each in transfers if each.operation == transfers[0].operation])
    return svg(figure)


def steps_picture(bench: Bench) -> str:
    """Tokens a second of each strategy, as bars with the share of the measured rate of products."""
    figure = new_figure(8, 0.9 + 0.45 * len(bench.steps))
    axes = figure.add_subplot()
    plain(axes)
    steps = bench.steps[::-1]
    bars = axes.barh([step.strategy for step in steps], [step.tokens_per_s for step in steps], color=_COLOURS[0])
    shares = [step_share(bench, step) for step in steps]
    words = [
        f"{duration(step.seconds)}{f', {share:.0%} of the product rate' if share else ''}"
        for step, share in zip(steps, shares, strict=True)
    ]
    axes.bar_label(bars, words, padding=4, fontsize=8)
    axes.set_xlim(0, 1.45 * max(step.tokens_per_s for step in steps))
    axes.set_xlabel("tokens per second, all ranks")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return svg(figure)


def svg(figure: Figure) -> str:
    """The picture as text to be put into a page; the same picture is the same text."""
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.hashsalt": "aiftrain"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _side(product: Product) -> float:
    return float((product.m * product.n * product.k) ** (1 / 3))


def _promise(axes: Axes, value: float | None, words: str) -> None:
    if value is not None:
        axes.axhline(value, color=_PROMISE, linestyle="--", linewidth=1, label=f"{value:,.4g} {words}")


def _axes(axes: Axes, across: str, upwards: str, word: Callable[[float], str], up: Callable[[float], str]) -> None:
    from matplotlib.ticker import LogFormatter

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel(across)
    axes.set_ylabel(upwards)
    axes.xaxis.set_major_formatter(lambda value, _: word(value))
    axes.yaxis.set_major_formatter(lambda value, _: up(value))
    axes.yaxis.set_minor_formatter(LogFormatter() if up is _number else "")
    axes.tick_params(labelsize=8, which="both")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)


def _number(value: float) -> str:
    return f"{value:,.4g}"
