"""Batches of a prepared corpus: windows of packed documents, in an order that (seed, step) alone decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiftrain.data.corpus import PreparedCorpus, TokenRange
from aiftrain.data.gaps import Gap, left_out
from aiftrain.data.indexed import IndexedTokens, Positions, bin_file
from aiftrain.data.order import SampleOrder
from aiftrain.errors import DamagedError, UserError

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
    """Rows being filled: L + 1 tokens each, where documents start in them, and what only fills them up."""

    def __init__(self, count: int, length: int) -> None:
        shape = (count, length + 1)
        self.tokens = np.empty(shape, np.int64)
        self.starts = np.zeros(shape, np.bool_)
        self.filled_from = np.full(count, length + 1)

    def fill_up(self, place: int, length: int, token: int) -> None:
        """Make a row of `length` tokens a whole one; what fills it counts as another document."""
        self.tokens[place, length:] = token
        self.starts[place, length] = True
        self.filled_from[place] = length


class Windows:
    """The windows of a range of documents. `whole` of them are full; of `all`, the last may need filling."""

    def __init__(self, range_: TokenRange, length: int, eos: int) -> None:
        self._file = IndexedTokens(range_.prefix)
        self.length = length
        self._eos = eos
        documents = np.array([range_.first_document, range_.first_document + range_.documents])
        self._start, self._stop = map(int, self._file.document_starts(documents))
        self.tokens = self._stop - self._start
        self.whole = max(self.tokens - 1, 0) // length
        self.all = -(-max(self.tokens - 1, 0) // length)

    def read(self, windows: Positions, places: Positions, rows: Rows) -> None:
        """Put windows into rows, `windows[i]` into row `places[i]`."""
        begins = self._start + windows * self.length
        ends = np.minimum(begins + self.length + 1, self._stop)
        documents = self._file.documents_before(np.stack([begins, ends - 1]))
        for place, begin, end, first, last in np.stack([places, begins, ends, *documents]).T.tolist():
            rows.tokens[place, : end - begin] = self._file.tokens[begin:end]
            rows.starts[place, self._file.document_starts(np.arange(first, last)) - begin] = True
            if end - begin <= self.length:
                rows.fill_up(place, end - begin, self._eos)

    def where(self, window: int) -> str:
        """The place of a window, for a message."""
        begin = self._start + window * self.length
        end = min(begin + self.length + 1, self._stop)
        return f"window {window} (tokens {begin} to {end - 1} of {bin_file(self._file.prefix)})"


class Batches:
    """The training and validation batches of a corpus.

    Rows are windows of `sequence_length` tokens and one to predict, cut at a stride of `sequence_length` from
    a source's documents laid end to end. `step` counts global batches from 0. Without `document_mask` the
    documents of a row are all number 0, and each predicts the first token of the next. No token reaches a model
    whose vocabulary has fewer than `vocab_size` entries.
    Raises UserError where a source is shorter than one window, DamagedError where its files are damaged.
    """

    def __init__(
        self,
        corpus: PreparedCorpus,
        *,
        sequence_length: int,
        global_batch: int,
        vocab_size: int,
        seed: int,
        document_mask: bool = True,
    ) -> None:
        self.names = list(corpus.sources)
        self._length = sequence_length
        self._global_batch = global_batch
        self._vocab_size = vocab_size
        self._mask = document_mask
        eos, sources = corpus.tokenizer.eos_id, corpus.sources
        self._train = {name: Windows(source.train, sequence_length, eos) for name, source in sources.items()}
        self._validation = {
            name: Windows(source.validation, sequence_length, eos)
            for name, source in sources.items()
            if source.validation is not None
        }
        windows = {name: _whole_windows(name, window) for name, window in self._train.items()}
        self._order = SampleOrder(windows, {name: source.weight for name, source in sources.items()}, seed)

    def samples(self, step: int) -> int:
        """How many samples the first `step` global batches have."""
        return step * self._global_batch

    def batch(self, step: int, start: int, count: int, skipped: int = 0) -> Batch:
        """Rows [start, start + count) of global batch `step`, `skipped` samples further on in the order.

        DamagedError where a window holds a token that the vocabulary has not.
        """
        sources, windows = self._order.samples(self.samples(step) + start + skipped, count)
        rows = Rows(count, self._length)
        for number in np.unique(sources):
            places = np.flatnonzero(sources == number)
            self._train[self.names[number]].read(windows[places], places, rows)
        self._check(self._train, rows, sources, windows)
        return self._finish(rows, sources)

    def source_tokens(self, step: int, gaps: Sequence[Gap] = ()) -> dict[str, int]:
        """How many tokens of each source stand in the first `step` global batches of an order with these gaps."""
        samples = self.samples(step)
        end = samples + left_out(gaps, samples)
        counts = self._order.counts(end)
        for start, stop in (gap for gap in gaps if gap[0] < end):
            counts = counts - (self._order.counts(stop) - self._order.counts(start))
        return dict(zip(self.names, (counts * self._length).tolist(), strict=True))

    def validation(self, source: str) -> int:
        """How many rows the validation part of a source has; the last one may be filled up."""
        return self._validation[source].all if source in self._validation else 0

    def validation_batch(self, source: str, start: int, count: int) -> Batch:
        """Rows [start, start + count) of a source's validation part. IndexError where it has not so many."""
        if start < 0 or start + count > self.validation(source):
            raise IndexError(f"{source} has {self.validation(source)} validation rows, not {start + count}")
        rows, windows = Rows(count, self._length), np.arange(start, start + count)
        sources = np.full(count, self.names.index(source))
        self._validation[source].read(windows, np.arange(count), rows)
        self._check(self._validation, rows, sources, windows)
        return self._finish(rows, sources)

    def _check(self, parts: Mapping[str, Windows], rows: Rows, sources: Positions, windows: Positions) -> None:
        """An embedding reads whatever lies at a token's place in memory, or ends a GPU's whole process."""
        values = rows.tokens.view(np.uint64)  # below zero is above all
        if not values.size or values.max() < self._vocab_size:
            return
        place, column = np.argwhere(values >= self._vocab_size)[0]
        name = self.names[sources[place]]
        raise DamagedError(
            f"data.sources.{name}: {parts[name].where(windows[place])} holds the token {rows.tokens[place, column]}; "
            f"the model's vocabulary has {self._vocab_size} entries. The file has changed since it was prepared: "
            "bring back what it was, or prepare it again for a run of its own"
        )

    def _finish(self, rows: Rows, sources: NDArray[np.int64]) -> Batch:
        targets = rows.tokens[:, 1:].copy()
        for place in np.flatnonzero(rows.filled_from <= self._length):
            targets[place, rows.filled_from[place] - 1 :] = IGNORED
        documents = np.zeros(targets.shape, np.int32)
        if self._mask:
            targets[rows.starts[:, 1:]] = IGNORED
            np.cumsum(rows.starts[:, :-1], axis=1, out=documents)
        return Batch(np.ascontiguousarray(rows.tokens[:, :-1]), targets, documents, sources)


def _whole_windows(name: str, windows: Windows) -> int:
    if not windows.whole:
        raise UserError(
            f"data.sources.{name} has {windows.tokens} training tokens; one window needs {windows.length + 1} "
            f"(train.sequence_length and one to predict)"
        )
    return windows.whole
