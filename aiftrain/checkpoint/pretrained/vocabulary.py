"""More tokens than the published weights know: what their rows of the embedding and of the head begin with.

A new token begins as the mean of the old ones that spell it, in both tables. That is inside the convex hull of the old
rows, which arXiv 2407.05841 argues for; it also finds simple ways on a par with elaborate ones. A row without a
spelling (padding of the table, letters that the old tokenizer lacks) is the mean of all old rows, so that no new token
takes much of the softmax (Hewitt 2021, nlp.stanford.edu/~johnhew/vocab-expansion.html), and a little noise, so that no
two are alike. Rows of old tokens stay as they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from aiftrain.checkpoint.pretrained.reader import PretrainedReader
from aiftrain.checkpoint.shards import Array
from aiftrain.data.files import reading
from aiftrain.errors import UserError

TABLES = ("embed.weight", "head.weight")
_NOISE = 0.01  # of the standard deviation of the old rows: our choice, far below what training changes at once
_ROWS = 4096  # that are read at one time

Spellings = Mapping[int, list[int]]


class GrownReader:
    """As `reader`, with tables of more than `rows` rows of `columns` elements. `spellings`: new tokens in old ones."""

    def __init__(self, reader: PretrainedReader, rows: int, columns: int, spellings: Spellings, seed: int) -> None:
        self._reader, self._rows, self._columns = reader, rows, columns
        self._spellings, self._seed = spellings, seed
        self._moments: dict[str, tuple[NDArray[np.float64], float]] = {}

    def read(self, name: str, start: int, stop: int) -> Array:
        """As `PretrainedReader.read`."""
        if name not in TABLES:
            return self._reader.read(name, start, stop)
        values, old = np.empty(stop - start, np.float32), self._rows * self._columns
        if start < old:
            values[: old - start] = self._reader.read(name, start, min(stop, old))
        for row in range(start // self._columns, -(-stop // self._columns)):
            if row >= self._rows or row in self._spellings:
                begin = row * self._columns
                first, last = max(start, begin), min(stop, begin + self._columns)
                values[first - start : last - start] = self._new_row(name, row)[first - begin : last - begin]
        return values

    def _new_row(self, name: str, row: int) -> NDArray[np.float64]:
        if pieces := self._spellings.get(row):
            rows = np.stack([self._old_rows(name, piece, piece + 1)[0] for piece in pieces])
            return np.asarray(rows.astype(np.float64).mean(0))
        mean, deviation = self._mean_and_deviation(name)
        dice = np.random.default_rng(zlib.crc32(f"{self._seed} {name} {row}".encode()))
        noise: NDArray[np.float64] = dice.normal(0.0, _NOISE * deviation, self._columns)
        return mean + noise

    def _mean_and_deviation(self, name: str) -> tuple[NDArray[np.float64], float]:
        """The mean old row, and the standard deviation of the old rows' elements around it; read once."""
        if name not in self._moments:
            total, squares = np.zeros(self._columns), np.zeros(self._columns)
            for first in range(0, self._rows, _ROWS):
                rows = self._old_rows(name, first, min(first + _ROWS, self._rows)).astype(np.float64)
                total += rows.sum(0)
                squares += (rows**2).sum(0)
            mean = total / self._rows
            self._moments[name] = mean, float(np.sqrt(np.maximum(squares / self._rows - mean**2, 0).mean()))
        return self._moments[name]

    def _old_rows(self, name: str, first: int, last: int) -> Array:
        return self._reader.read(name, first * self._columns, last * self._columns).reshape(-1, self._columns)


def spellings(old: Path, new: Path) -> dict[int, list[int]]:
    """The tokens that only `new` has, each in tokens of `old`, as the old tokenizer's own model cuts it.

    UserError where `new` does not have every old token in its old place: its row would be another token's.
    """
    if _bytes_of(old) == _bytes_of(new):
        return {}
    known, wanted = _vocabulary(old), _vocabulary(new)
    moved = sorted(token for token, number in known.items() if wanted.get(token) != number)
    if moved:
        raise UserError(
            f"{new} is not the tokenizer of the weights ({old}), nor one that extends it: {len(moved):,} tokens are "
            f"not in their place, such as {', '.join(map(repr, moved[:3]))}. Add tokens at the end, and move none"
        )
    model = Tokenizer.from_file(str(old)).model
    return {number: _pieces(model, token) for token, number in wanted.items() if token not in known}


def tokenizer_file(path: str) -> Path:
    """The file that `data.tokenizer.path` means: itself, or the tokenizer.json in a folder."""
    return Path(path, "tokenizer.json") if Path(path).is_dir() else Path(path)


def _pieces(model: Any, token: str) -> list[int]:
    """Nothing, where the old model has letters for only some of it."""
    pieces = model.tokenize(token)
    unknown = getattr(model, "unk_token", None)
    whole = all(piece.value != unknown for piece in pieces) and sum(len(piece.value) for piece in pieces) >= len(token)
    return [piece.id for piece in pieces] if whole else []


def _vocabulary(file: Path) -> dict[str, int]:
    if file.suffix != ".json":
        raise UserError(f"{file}: only of a tokenizer.json can be told how it extends another one")
    try:
        return dict(Tokenizer.from_buffer(_bytes_of(file)).get_vocab(with_added_tokens=True))
    except Exception as error:  # tokenizers raises nothing more special
        raise UserError(f"{file} is no tokenizer.json: {error}") from error


def _bytes_of(file: Path) -> bytes:
    with reading(file):
        return file.read_bytes()
