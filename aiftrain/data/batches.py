"""Batches of a prepared corpus: windows of packed documents, in an order that (seed, step) alone decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aiftrain.data.corpus import PreparedCorpus, TokenRange
from aiftrain.data.gaps import Gap
from aiftrain.data.goldfish import left_out
from aiftrain.data.indexed import IndexedTokens, Positions, bin_file
from aiftrain.data.order import Mixing, SampleOrder
from aiftrain.errors import DamagedError, UserError
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

    def without_loss(self) -> Batch:
        """The same rows, of which no loss is taken."""
        return replace(self, targets=np.full_like(self.targets, IGNORED))


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

    def where(self, window: int) -> str:
        """The place of a window, for a message."""
        begin = self._start + window * self.length
        end = min(begin + self.length + 1, self._stop)
        return f"window {window} (tokens {begin} to {end - 1} of {bin_file(self._file.prefix)})"


class Batches:
    """The training and validation batches of a corpus, as long as the run lasts.

    Rows are windows of the step's sequence length and one token to predict, cut at a stride of that length from
    a source's documents laid end to end. `step` counts global batches from 0. Without `document_mask` the
    documents of a row are all number 0, and each predicts the first token of the next. No token reaches a model
    whose vocabulary has fewer than `vocab_size` entries. `goldfish` leaves training targets out of the loss.
    `unit` is how many tokens are shuffled as one where the length changes; None: the least that all lengths divide.
    Raises UserError where a source is shorter than one unit, DamagedError where its files are damaged.
    """

    def __init__(
        self,
        corpus: PreparedCorpus,
        timeline: Timeline,
        *,
        vocab_size: int,
        seed: int,
        unit: int | None = None,
        document_mask: bool = True,
        goldfish: GoldfishSpec | None = None,
    ) -> None:
        self.names = list(corpus.sources)
        self._timeline = timeline
        self._vocab_size = vocab_size
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

    def samples(self, step: int) -> int:
        """How many samples the first `step` global batches have."""
        return self._timeline.samples_before(step)

    def batch(self, step: int, start: int, count: int, skipped: int = 0) -> Batch:
        """Rows [start, start + count) of global batch `step`, `skipped` samples further on in the order.

        DamagedError where a window holds a token that the vocabulary has not.
        """
        length = self._timeline.at(step).sequence_length
        sources, windows = self._order.samples(self.samples(step) + start, count, skipped)
        rows = Rows(count, length, before=self._goldfish.width - 1 if self._goldfish else 0)
        for number in np.unique(sources):
            places = np.flatnonzero(sources == number)
            self._train[self.names[number]].of_length(length).read(windows[places], places, rows)
        self._check(self._train, rows, sources, windows)
        batch = self._finish(rows, sources)
        if self._goldfish:
            gaps = left_out(rows.all_tokens, rows.all_starts, rows.known_from, self._goldfish)
            batch.targets[gaps] = IGNORED
        return batch

    def source_tokens(self, step: int, gaps: Sequence[Gap] = ()) -> dict[str, int]:
        """How many tokens of each source stand in the first `step` global batches of an order with these gaps."""
        counts = self._order.counts(self.samples(step), gaps)
        seen = sum(count * mixing.length for count, mixing in zip(counts, self._mixings, strict=False))
        return dict(zip(self.names, np.asarray(seen).tolist(), strict=True))

    def validation(self, source: str, length: int) -> int:
        """How many rows of `length` tokens the validation part of a source has; the last one may be filled up."""
        return self._validation[source].of_length(length).count if source in self._validation else 0

    def validation_batch(self, source: str, length: int, start: int, count: int) -> Batch:
        """Rows [start, start + count) of a source's validation part. IndexError where it has not so many."""
        if start < 0 or start + count > self.validation(source, length):
            raise IndexError(f"{source} has {self.validation(source, length)} validation rows, not {start + count}")
        rows, windows = Rows(count, length), np.arange(start, start + count)
        sources = np.full(count, self.names.index(source))
        self._validation[source].of_length(length).read(windows, np.arange(count), rows)
        self._check(self._validation, rows, sources, windows)
        return self._finish(rows, sources)

    def _check(self, parts: Mapping[str, Windows], rows: Rows, sources: Positions, windows: Positions) -> None:
        """An embedding reads whatever lies at a token's place in memory, or ends a GPU's whole process."""
        values = rows.tokens.view(np.uint64)  # below zero is above all
        if not values.size or values.max() < self._vocab_size:
            return
        place, column = np.argwhere(values >= self._vocab_size)[0]
        name = self.names[sources[place]]
        where = parts[name].of_length(rows.tokens.shape[1] - 1).where(windows[place])
        raise DamagedError(
            f"data.sources.{name}: {where} holds the token {rows.tokens[place, column]}; "
            f"the model's vocabulary has {self._vocab_size} entries. The file has changed since it was prepared: "
            "bring back what it was, or prepare it again for a run of its own"
        )

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
