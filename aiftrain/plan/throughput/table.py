"""A table of runs as it is written: its rows, and what a cell holds."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from aiftrain.errors import UserError

T = TypeVar("T")

NEEDED = ("id", "hardware", "gpus", "model")  # columns without which no row says anything

_EMPTY = re.compile(r"(n/?a|nan|null|unknown|-|\?)?", re.IGNORECASE)
_NUMBER = re.compile(r"((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?(?:[eE]\+?\d+)?)\s*([kM]?)", re.ASCII)
_SCALES = {"": 1, "k": 1_000, "M": 1_000_000}
_MOST = {"layers": 10_000}  # of what is counted one by one
_MOST_OF_ANYTHING = 10**9


class CannotSay(Exception):
    """Why a row cannot be predicted."""


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a table. Raises UserError where it cannot be read or lacks a needed column."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            header = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--points {file} cannot be read as a table of comma-separated values: {error}") from error
    if missing := [name for name in NEEDED if name not in header]:
        found = f"its first line names {', '.join(header)[:200]}" if header else "it is empty"
        raise UserError(f"--points {file} has no column {', '.join(missing)}: {found}")
    return rows


class Cells:
    """A row, read by column; what is assumed for an empty cell is kept in `assumed`."""

    def __init__(self, row: Mapping[str, str]) -> None:
        self._row = row
        self.assumed: list[str] = []

    def text(self, key: str) -> str:
        """What stands in a cell; "" where it is empty or says that nobody knows."""
        word = self._row.get(key) or ""
        return "" if _EMPTY.fullmatch(word) else word

    def whole(self, key: str) -> int | None:
        """A whole number of 1 or more, or None where the cell is empty. Raises CannotSay for anything else."""
        number = self.number(key)
        if number is None:
            return None
        if number != int(number) or not 1 <= number <= _MOST.get(key, _MOST_OF_ANYTHING):
            raise CannotSay(f"{key} is {self.text(key)}: a whole number of 1 or more is expected")
        return int(number)

    def number(self, key: str) -> float | None:
        """A number such as 7.5, 32k or 1e3, or None where the cell is empty. Raises CannotSay for anything else."""
        word = self.text(key)
        if word in ("", "none"):
            return None
        found = _NUMBER.fullmatch(word)
        number = float(found[1].replace(",", "")) * _SCALES[found[2]] if found else math.inf
        if math.isinf(number):
            raise CannotSay(f"{key} is '{word}': a number is expected")
        return number

    def assume(self, words: str, value: T) -> T:
        """`value`, for a cell that is empty."""
        self.assumed.append(words)
        return value
