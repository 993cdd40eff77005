"""From encoded units to a source's training and validation parts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from aiftrain.data.encoding import Hashes, Job, hashes_file, record_file
from aiftrain.data.files import commit, part_of, writing
from aiftrain.data.indexed import IndexedTokens, IndexedWriter, Positions, Tokens, token_type
from aiftrain.errors import UserError
from aiftrain.run.base import Strict

Counts = NDArray[np.int64]  # how often each token occurs; [2, entries] for the training and the validation part

FEWEST_DOCUMENTS = 10  # a source with fewer may go without a validation part
_CHUNK = 1 << 24  # tokens counted at a time


class Part(Strict):
    """A range of documents of a token file."""

    first_document: int
    documents: int
    tokens: int


class SourceRecord(Strict):
    """What preparation made of a source. Written last: where it stands, the source is ready."""

    train: Part
    validation: Part | None
    documents_left_out: int = 0
    files_left_out: int = 0


class Units:
    """The finished units of a source, opened one after another."""

    def __init__(self, job: Job, count: int) -> None:
        self._prefixes = [job.prefix(number) for number in range(count)]

    def __iter__(self) -> Iterator[tuple[IndexedTokens, Hashes]]:
        return ((IndexedTokens(prefix), self._hashes(prefix)) for prefix in self._prefixes)

    def left_out(self) -> int:
        """How many documents were empty or left out as broken."""
        return sum(json.loads(record_file(prefix).read_bytes())["left_out"] for prefix in self._prefixes)

    def validation_bound(self, fraction: float) -> int:
        """Documents whose hash is below this are for validation: about `fraction` of all.

        The bound is raised to give a source of at least `FEWEST_DOCUMENTS` one validation document, and
        lowered to leave one for training. Equal documents have equal hashes and so stay on one side.
        Raises UserError where there is no document.
        """
        filled = [hashes for hashes in map(self._hashes, self._prefixes) if len(hashes)]
        if not filled:
            left_out = f"; {self.left_out()} were empty or left out" if self.left_out() else ""
            raise UserError(f"there is no document in it{left_out}")
        bound = int(fraction * 2**64)
        if fraction > 0 and sum(map(len, filled)) >= FEWEST_DOCUMENTS:
            bound = max(bound, min(int(hashes.min()) for hashes in filled) + 1)
        return min(bound, max(int(hashes.max()) for hashes in filled))

    @staticmethod
    def _hashes(prefix: Path) -> Hashes:
        return cast(Hashes, np.load(hashes_file(prefix)))


def split_units(units: Units, folder: Path, fraction: float, vocab_size: int) -> tuple[SourceRecord, Counts]:
    """Write train.bin/.idx and, unless it is empty, validation.bin/.idx into `folder`."""
    bound = units.validation_bound(fraction)
    train, train_counts = _write_part(units, bound, folder / "train", vocab_size, validation=False)
    validation, validation_counts = _write_part(units, bound, folder / "validation", vocab_size, validation=True)
    record = SourceRecord(
        train=train, validation=validation if validation.documents else None, documents_left_out=units.left_out()
    )
    return record, np.stack([train_counts, validation_counts])


def _write_part(units: Units, bound: int, prefix: Path, vocab_size: int, *, validation: bool) -> tuple[Part, Counts]:
    with IndexedWriter(prefix, token_type(vocab_size)) as writer:
        for tokens, hashes in units:
            for run, lengths in _runs(tokens, (hashes < bound) == validation):
                writer.add(run, lengths)
        writer.commit()
    written = IndexedTokens(prefix)
    part = Part(first_document=0, documents=written.documents, tokens=len(written))
    return part, _count(written, 0, len(written), vocab_size)


def _runs(tokens: IndexedTokens, wanted: NDArray[np.bool_]) -> Iterator[tuple[Tokens, Positions]]:
    """The tokens and lengths of the wanted documents, in runs of neighbours."""
    starts = tokens.document_starts(np.arange(tokens.documents + 1))
    padded = np.pad(wanted, 1)
    for first, stop in np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2):
        yield tokens.tokens[starts[first] : starts[stop]], np.diff(starts[first : stop + 1])


def split_in_place(tokens: IndexedTokens, fraction: float, vocab_size: int) -> tuple[SourceRecord, Counts]:
    """The parts of a token file that is used as it is: its last documents are for validation.

    Raises UserError where it is empty or holds tokens that the vocabulary has not, DamagedError where it is damaged.
    """
    tokens.check()
    kept = int(fraction > 0 and tokens.documents >= FEWEST_DOCUMENTS)
    validation = min(max(round(tokens.documents * fraction), kept), max(tokens.documents - 1, 0))
    first = tokens.documents - validation
    starts = tokens.document_starts(np.array([0, first, tokens.documents]))
    parts = [Part(first_document=0, documents=first, tokens=int(starts[1]))]
    parts += [Part(first_document=first, documents=validation, tokens=int(starts[2] - starts[1]))]
    if not parts[0].tokens:
        raise UserError(f"{tokens.prefix}.bin holds no tokens to train on")
    counts = np.stack([_count(tokens, start, stop, vocab_size) for start, stop in pairwise(starts.tolist())])
    return SourceRecord(train=parts[0], validation=parts[1] if parts[1].tokens else None), counts


def _count(tokens: IndexedTokens, start: int, stop: int, vocab_size: int) -> Counts:
    counts = np.zeros(vocab_size, np.int64)
    for position in range(start, stop, _CHUNK):
        chunk = tokens.tokens[position : min(position + _CHUNK, stop)]
        low, high = int(chunk.min()), int(chunk.max())
        if low < 0 or high >= vocab_size:
            wrong = low if low < 0 else high
            raise UserError(
                f"{tokens.prefix}.bin holds the token {wrong}; the model's vocabulary has {vocab_size} entries"
            )
        counts += np.bincount(chunk, minlength=vocab_size)
    return counts


def write_counts(file: Path, counts: Counts) -> None:
    """Keep how often each token occurs, for the unigram loss."""
    part = part_of(file)
    with writing(file), part.open("wb") as stream:
        np.save(stream, counts)
    commit(part, file)
