"""What `plan --search` and `plan --compare` share: their options, and how figures are written in their tables."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from aiftrain.errors import UserError

_SEARCHES = ("deadline", "budget", "cheapest")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `plan` that try more than one layout."""
    group = parser.add_argument_group("search and comparison")
    add = group.add_argument
    add("--search", action="store_true", help="every layout; with a goal, every number of nodes")
    add("--deadline", type=_Positive("days"), metavar="DAYS", help="goal: the fewest nodes in time")
    add("--budget", type=_Positive("units"), metavar="UNITS", help="goal: the fastest for so many units of the site")
    add("--cheapest", action="store_true", help="goal: the lowest bill, while the grant lasts")
    add("--compare", metavar="FACTORY,...", help="the run at several factories, or `all`")
    add("--picture", type=Path, metavar="FILE", help="with --search or --compare: draw it, .png or .svg")


def several(options: argparse.Namespace) -> bool:
    """Whether a search or comparison was asked for. Raises UserError where the options contradict each other."""
    goals = [name for name in _SEARCHES if getattr(options, name)]
    if len(goals) > 1:
        raise UserError(f"--{goals[0]} and --{goals[1]}: a search has one goal; leave one of them out")
    if options.compare is not None and options.search:
        raise UserError("--compare finds the best layout of each factory by itself: leave out --search")
    if options.compare is not None and goals and goals[0] != "deadline":
        raise UserError(f"--{goals[0]} goes with --search; --compare takes --deadline DAYS")
    asked = options.search or options.compare is not None
    if asked and options.multirun:
        raise UserError(f"--{'search' if options.search else 'compare'} takes one run: leave out -m")
    if not asked and (goals or options.picture):
        raise UserError(f"--{goals[0] if goals else 'picture'} goes with --search or --compare")
    if asked and options.picture:
        from aiftrain.report.picture import check

        check(options.picture)
    return bool(asked)


def short(number: float) -> str:
    """Three figures: `26.7`, `328 k`, `1.79 M`."""
    for scale, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= scale:
            return f"{number / scale:.3g}{letter}" if number < 999.5 * scale else f"{number / scale:,.0f}{letter}"
    return f"{number:.3g}"


def amount(number: float) -> str:
    """At least three figures: `328,373`, `26.7`."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def span(low: float, high: float) -> str:
    """`22.8-31.2`."""
    return f"{amount(low)}-{amount(high)}"


def short_span(low: float, high: float) -> str:
    """`1.54-2.1 M`; `930 k-1.2 M` where the two are of different scale."""
    first, second = short(low), short(high)
    if first.partition(" ")[2] == second.partition(" ")[2]:
        first = first.partition(" ")[0]
    return f"{first}-{second}"


class _Positive:
    """Reads a number above 0 off the command line."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, text: str) -> float:
        try:
            number = float(text.replace("_", ""))
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number > 0):
            raise argparse.ArgumentTypeError(f"'{text}' is no number of {self.what}: it must be above 0, such as 30")
        return number
