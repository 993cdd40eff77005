"""Batches of a prepared corpus: windows of packed documents, in an order that (seed, step) alone decides."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiftrain.data.corpus import PreparedCorpus, TokenRange
from aiftrain.data.goldfish import left_out
from aiftrain.data.indexed import IndexedTokens, Positions
from aiftrain.data.order import Mixing, SampleOrder
from aiftrain.errors import UserError
from aiftrain.run.corpus import GoldfishSpec
from aiftrain.run.timeline import Timeline

IGNORED = -100  # a target that no loss is taken of


@dataclass(frozen=True)
class Batch:
    """n rows of L tokens.

    `tokens` int64 [n, L]; `targets` int64 [n, L], the token after each, `IGNORED` where that belongs to another
    document; `documents` int32 [n, L], the number of the document inside its row, from 0; `sources` int64 [n],
    the number of each row's source among the corpus's.
    """

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    documents: NDArray[np.int32]
    sources: NDArray[np.int64]

    @property
    def valid_tokens(self) -> int:
        """How many tokens a loss is taken of."""
        return int(np.count_nonzero(self.targets != IGNORED))


class Rows:
    """Rows being filled: L + 1 tokens each, where documents start in them, and what only fills them up.

    `before` tokens of the same source stand to the left of them, as far as there are any, in `all_tokens` and
    `all_starts`; `known_from` is the first column there that holds text.
    """

    def __init__(self, count: int, length: int, before: int = 0) -> None:
        shape = (count, before + length + 1)
        self.before = before
        self.all_tokens, self.all_starts = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
        self.tokens, self.starts = self.all_tokens[:, before:], self.all_starts[:, before:]
        self.known_from = np.full(count, before)
        self.filled_from = np.full(count, length + 1)

    def fill_up(self, place: int, length: int, token: int) -> None:
        """Make a row of `length` tokens a whole one; what fills it counts as another document."""
        self.tokens[place, length:] = token
        self.starts[place, length] = True
        self.filled_from[place] = length


class Windows:
    """The windows of a range of documents, `length` tokens each; the last one may need filling."""

    def __init__(self, range_: TokenRange, length: int, eos: int) -> None:
        self._file = IndexedTokens(range_.prefix)
        self.length = length
        self._eos = eos
        documents = np.array([range_.first_document, range_.first_document + range_.documents])
        self._start, self._stop = map(int, self._file.document_starts(documents))
        self.tokens = self._stop - self._start
        self.predicted = max(self.tokens - 1, 0)

    @property
    def count(self) -> int:
        return -(-self.predicted // self.length)

    def of_length(self, length: int) -> Windows:
        """The same documents in windows of another length."""
        other = copy(self)
        other.length = length
        return other

    def read(self, windows: Positions, places: Positions, rows: Rows) -> None:
        """Put windows into rows, `windows[i]` into row `places[i]`."""
        begins = self._start + windows * self.length
        ends = np.minimum(begins + self.length + 1, self._stop)
        opens = np.maximum(begins - rows.before, self._start)
        documents = self._file.documents_before(np.stack([opens, ends - 1]))
        rows.known_from[places] = rows.before - (begins - opens)
        for place, opening, begin, end, first, last in np.stack([places, opens, begins, ends, *documents]).T.tolist():
            left = begin - rows.before  # the position of the first column
            rows.all_tokens[place, opening - left : end - left] = self._file.tokens[opening:end]
            rows.all_starts[place, self._file.document_starts(np.arange(first, last)) - left] = True
            if end - begin <= self.length:
                rows.fill_up(place, end - begin, self._eos)


class Batches:
    """The training and validation batches of a corpus, as long as the run lasts.

    Rows are windows of the step's sequence length and one token to predict, cut at a stride of that length from
    a source's documents laid end to end. `step` counts global batches from 0. Without `document_mask` the
    documents of a row are all number 0, and each predicts the first token of the next.
    `goldfish` leaves training targets out of the loss.
    `unit` is how many tokens are shuffled as one where the length changes; None: the least that all lengths divide.
    Raises UserError where a source is shorter than one unit, DamagedError where its files are damaged.
    """

    def __init__(
        self,
        corpus: PreparedCorpus,
        timeline: Timeline,
        *,
        seed: int,
        unit: int | None = None,
        document_mask: bool = True,
        goldfish: GoldfishSpec | None = None,
    ) -> None:
        self.names = list(corpus.sources)
        self._timeline = timeline
        self._mask, self._goldfish = document_mask, goldfish
        eos, sources = corpus.tokenizer.eos_id, corpus.sources
        length = timeline.phases[0].sequence_length
        self._train = {name: Windows(source.train, length, eos) for name, source in sources.items()}
        self._validation = {
            name: Windows(source.validation, length, eos)
            for name, source in sources.items()
            if source.validation is not None
        }
        weights = {name: source.weight for name, source in sources.items()}
        self._mixings = list(_mixings(timeline, weights, unit or timeline.common_length))
        tokens = {name: _enough(name, windows, self._mixings) for name, windows in self._train.items()}
        self._order = SampleOrder(tokens, self._mixings, seed)

    def batch(self, step: int, start: int, count: int) -> Batch:
        """Rows [start, start + count) of global batch `step`."""
        length = self._timeline.at(step).sequence_length
        sources, windows = self._order.samples(self._timeline.samples_before(step) + start, count)
        rows = Rows(count, length, before=self._goldfish.width - 1 if self._goldfish else 0)
        for number in np.unique(sources):
            places = np.flatnonzero(sources == number)
            self._train[self.names[number]].of_length(length).read(windows[places], places, rows)
        batch = self._finish(rows, sources)
        if self._goldfish:
            gaps = left_out(rows.all_tokens, rows.all_starts, rows.known_from, self._goldfish)
            batch.targets[gaps] = IGNORED
        return batch

    def source_tokens(self, step: int) -> dict[str, int]:
        """How many tokens of each source stand in the first `step` global batches."""
        counts = self._order.counts(self._timeline.samples_before(step))
        seen = sum(count * mixing.length for count, mixing in zip(counts, self._mixings, strict=False))
        return dict(zip(self.names, np.asarray(seen).tolist(), strict=True))

    def validation(self, source: str, length: int) -> int:
        """How many rows of `length` tokens the validation part of a source has; the last one may be filled up."""
        return self._validation[source].of_length(length).count if source in self._validation else 0

    def validation_batch(self, source: str, length: int, start: int, count: int) -> Batch:
        """Rows [start, start + count) of a source's validation part. IndexError where it has not so many."""
        if start < 0 or start + count > self.validation(source, length):
            raise IndexError(f"{source} has {self.validation(source, length)} validation rows, not {start + count}")
        rows = Rows(count, length)
        windows = self._validation[source].of_length(length)
        windows.read(np.arange(start, start + count), np.arange(count), rows)
        return self._finish(rows, np.full(count, self.names.index(source)))

    def _finish(self, rows: Rows, sources: NDArray[np.int64]) -> Batch:
        targets = rows.tokens[:, 1:].copy()
        for place in np.flatnonzero(rows.filled_from <= targets.shape[1]):
            targets[place, rows.filled_from[place] - 1 :] = IGNORED
        documents = np.zeros(targets.shape, np.int32)
        if self._mask:
            targets[rows.starts[:, 1:]] = IGNORED
            np.cumsum(rows.starts[:, :-1], axis=1, out=documents)
        return Batch(np.ascontiguousarray(rows.tokens[:, :-1]), targets, documents, sources)


def _mixings(timeline: Timeline, weights: dict[str, float], unit: int) -> Iterator[Mixing]:
    """A stretch of the order for each change of mixture or length. A length that does not divide `unit` is its own."""
    before: Mixing | None = None
    for phase in timeline.phases:
        length = phase.sequence_length
        mixing = Mixing(phase.first_sample, phase.weights or weights, length, unit if unit % length == 0 else length)
        if before is None or mixing[1:] != before[1:]:
            yield mixing
        before = mixing


def _enough(name: str, windows: Windows, mixings: list[Mixing]) -> int:
    """The tokens of a source that windows can begin with. UserError where they do not make one unit."""
    unit = max(mixing.unit for mixing in mixings)
    if windows.predicted >= unit:
        return windows.predicted
    what = "window" if unit == windows.length else "unit of windows of all stages"
    raise UserError(
        f"data.sources.{name} has {windows.tokens} training tokens; one {what} needs {unit + 1} "
        f"(train.sequence_length and one to predict)"
    )
