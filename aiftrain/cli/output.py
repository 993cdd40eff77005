"""How results are shown: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_NAME = 20  # characters of a name that stay on one line, however narrow the terminal
_SCALES = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))


class _Console(Console):
    """A console that leaves a closed pipe to the program's end, as `print` does."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(*, as_json: bool = False) -> Console:
    """Where people are told things: stdout, or stderr where stdout belongs to a JSON document."""
    return _Console(stderr=as_json, highlight=False)


def print_json(document: Any) -> None:
    """The one document of `--json`."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> Table:
    """A plain table; columns in `numbers` are set right. The first, of names that people copy, is folded last."""
    grid, rows = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0)), list(rows)
    for place, name in enumerate(header):
        whole = min(max((len(row[0]) for row in rows), default=0), _NAME) if place == 0 else None
        grid.add_column(name, justify="right" if place in numbers else "left", overflow="fold", min_width=whole)
    for row in rows:
        grid.add_row(*map(Text, row))
    return grid


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and what is to be said of each, one below the other."""
    grid = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(name), Text(value))
    return grid


def headline(text: str, to: Console) -> None:
    """A bold line, wrapped, and a blank one."""
    lines = textwrap.wrap(text, to.width)
    to.print(Text("\n".join(lines) + "\n", style="bold"))


def show(grid: Table, to: Console) -> None:
    """Print a table; where nobody watches a terminal, without blanks at the ends of lines."""
    if to.is_terminal:
        to.print(grid)
        return
    with to.capture() as captured:
        to.print(grid)
    lines = (line.rstrip() for line in captured.get().splitlines())
    to.out("\n".join(lines), highlight=False)


def plural(number: int, noun: str) -> str:
    """`1 node`, `1,024 nodes`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(octets: float) -> str:
    """Bytes in units of 1024: `50.1 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if octets < 1024 or unit == "TiB":
            break
        octets /= 1024
    return f"{octets:,.0f} {unit}" if unit == "B" else f"{octets:,.1f} {unit}"


def count(number: float) -> str:
    """A large number in words: `6.72 billion`."""
    for scale, word in _SCALES:
        if number >= scale:
            return f"{number / scale:.2f} {word}"
    return f"{number:,.0f}"
