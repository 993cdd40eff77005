"""Batches: packed windows whose targets never cross a document, the same however they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiftrain.data.batches import IGNORED, Batches
from aiftrain.data.corpus import PreparedCorpus, PreparedSource, PreparedTokenizer, TokenRange
from aiftrain.data.gaps import left_out
from aiftrain.data.indexed import IndexedWriter, token_type
from aiftrain.errors import DamagedError, UserError
from aiftrain.run.timeline import Phase, Timeline

EOS = 0
LENGTH = 8


def _write(folder: Path, name: str, lengths: Sequence[int]) -> np.ndarray:
    """A token file in which all tokens differ, as far as uint16 allows, and each document ends with EOS."""
    tokens = 1 + np.arange(sum(lengths)) % 60_000
    tokens[np.cumsum(lengths) - 1] = EOS
    with IndexedWriter(folder / name, token_type(60_001)) as writer:
        writer.add(tokens, lengths)
        writer.commit()
    return tokens


def _range(folder: Path, name: str, lengths: Sequence[int], first: int = 0) -> TokenRange:
    kept = lengths[first:]
    return TokenRange(prefix=folder / name, first_document=first, documents=len(kept), tokens=sum(kept))


def _corpus(train: dict[str, tuple[TokenRange, float]], validation: TokenRange | None = None) -> PreparedCorpus:
    sources = {
        name: PreparedSource(
            train=range_, validation=validation, weight=weight, language=None, digest=name, unigram_loss=1.0
        )
        for name, (range_, weight) in train.items()
    }
    tokenizer = PreparedTokenizer(path=Path("none.json"), digest="", vocab_size=60_001, eos_id=EOS)
    return PreparedCorpus(name="test", tokenizer=tokenizer, sources=sources, unigram_loss=1.0, digest="")


def _lengths(seed: int, documents: int = 200) -> list[int]:
    return [int(length) for length in np.random.default_rng(seed).integers(1, 30, documents)]


@pytest.fixture
def corpus(tmp_path: Path) -> PreparedCorpus:
    """Two sources of weights 3/4 and 1/4, with a validation part of 21 tokens in three documents."""
    for name, seed in (("de", 0), ("fr", 1)):
        _write(tmp_path, name, _lengths(seed))
    _write(tmp_path, "validation", [5, 10, 6])
    parts = {name: _range(tmp_path, name, _lengths(seed)) for name, seed in (("de", 0), ("fr", 1))}
    train = {"de": (parts["de"], 0.75), "fr": (parts["fr"], 0.25)}
    return _corpus(train, _range(tmp_path, "validation", [5, 10, 6]))


def _batches(corpus: PreparedCorpus, **changes: object) -> Batches:
    settings_: dict[str, Any] = {"global_batch": 6, "vocab_size": 60_001, "seed": 3} | changes
    phase = Phase(None, settings_.pop("global_batch"), micro_batch=1, sequence_length=LENGTH, rope_theta=1e4)
    return Batches(corpus, Timeline((phase,), total_steps=1), **settings_)


def test_rows_are_windows_and_targets_the_next_tokens_inside_a_document(tmp_path: Path) -> None:
    lengths = _lengths(0)
    tokens = _write(tmp_path, "de", lengths)
    document_of = np.repeat(np.arange(len(lengths)), lengths)
    windows = (len(tokens) - 1) // LENGTH
    batches = _batches(_corpus({"de": (_range(tmp_path, "de", lengths), 1.0)}), global_batch=windows)
    batch = batches.batch(0, 0, windows)
    order = np.argsort(batch.tokens.max(axis=1))  # rows in the order of the file, since its tokens rise
    for window, row in enumerate(order):
        span = slice(window * LENGTH, (window + 1) * LENGTH)
        following = slice(span.start + 1, span.stop + 1)
        same = document_of[span] == document_of[following]
        assert np.array_equal(batch.tokens[row], tokens[span])
        assert np.array_equal(batch.targets[row], np.where(same, tokens[following], IGNORED))
        assert np.array_equal(batch.documents[row], document_of[span] - document_of[span][0])


def test_shapes_and_types(corpus: PreparedCorpus) -> None:
    batch = _batches(corpus).batch(4, 1, 3)
    assert [(a.shape, a.dtype.name) for a in (batch.tokens, batch.targets)] == [((3, LENGTH), "int64")] * 2
    assert (batch.documents.shape, batch.documents.dtype.name) == ((3, LENGTH), "int32")
    assert batch.sources.shape == (3,)
    assert batch.valid_tokens == 3 * LENGTH - int((batch.targets == IGNORED).sum())
    assert all(a.flags.c_contiguous and a.flags.writeable for a in (batch.tokens, batch.targets, batch.documents))


def test_without_the_document_mask_targets_are_plain(corpus: PreparedCorpus) -> None:
    masked, plain = _batches(corpus).batch(0, 0, 6), _batches(corpus, document_mask=False).batch(0, 0, 6)
    assert np.array_equal(masked.tokens, plain.tokens)
    assert (masked.targets == IGNORED).any()
    assert not (plain.targets == IGNORED).any()
    assert not plain.documents.any()
    assert np.array_equal(plain.targets[:, :-1], plain.tokens[:, 1:])


def test_an_epoch_reads_every_window_once(tmp_path: Path) -> None:
    lengths = _lengths(2)
    tokens = _write(tmp_path, "de", lengths)
    windows = (len(tokens) - 1) // LENGTH
    batches = _batches(_corpus({"de": (_range(tmp_path, "de", lengths), 1.0)}), global_batch=1)
    for epoch in range(3):
        rows = [batches.batch(epoch * windows + step, 0, 1).tokens[0] for step in range(windows)]
        firsts = sorted(tuple(row) for row in rows)
        assert firsts == sorted(map(tuple, tokens[: windows * LENGTH].reshape(-1, LENGTH)))


@settings(deadline=None, max_examples=30)
@given(step=st.integers(0, 10_000), cuts=st.sets(st.integers(1, 63)))
def test_rows_do_not_depend_on_how_ranks_share_them(
    tmp_path_factory: pytest.TempPathFactory, step: int, cuts: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("shared")
    parts = {}
    for name, seed, weight in (("de", 0, 0.6), ("fr", 1, 0.4)):
        _write(folder, name, _lengths(seed))
        parts[name] = (_range(folder, name, _lengths(seed)), weight)
    batches, fresh = (_batches(_corpus(parts), global_batch=64) for _ in range(2))
    whole = batches.batch(step, 0, 64)
    edges = [0, *sorted(cuts), 64]
    pieces = [fresh.batch(step, start, stop - start) for start, stop in pairwise(edges)]
    for field in ("tokens", "targets", "documents", "sources"):
        assert np.array_equal(getattr(whole, field), np.concatenate([getattr(piece, field) for piece in pieces]))


def test_tokens_seen_of_each_source(corpus: PreparedCorpus) -> None:
    batches = _batches(corpus)
    for steps in (0, 1, 7, 50):
        sources = [batches.batch(step, 0, 6).sources for step in range(steps)]
        counted = np.bincount(np.concatenate([np.empty(0, np.int64), *sources]), minlength=2) * LENGTH
        assert batches.source_tokens(steps) == {"de": counted[0], "fr": counted[1]}
    seen = batches.source_tokens(10_000)
    assert seen["de"] / sum(seen.values()) == pytest.approx(0.75, abs=1e-3)


def test_skipped_samples_are_jumped_over(corpus: PreparedCorpus) -> None:
    batches = _batches(corpus)
    one, other = batches.batch(3, 2, 4, skipped=12), batches.batch(5, 2, 4)
    assert np.array_equal(one.tokens, other.tokens)
    assert np.array_equal(one.sources, other.sources)


def test_tokens_of_a_gap_are_not_counted(corpus: PreparedCorpus) -> None:
    batches, gaps = _batches(corpus), [(12, 30), (48, 54)]
    for steps in range(12):
        sources = [batches.batch(step, 0, 6, left_out(gaps, step * 6)).sources for step in range(steps)]
        counted = np.bincount(np.concatenate([np.empty(0, np.int64), *sources]), minlength=2) * LENGTH
        assert batches.source_tokens(steps, gaps) == {"de": counted[0], "fr": counted[1]}


@pytest.mark.parametrize("wrong", [-1, 60_001, 2**31 - 1])
def test_a_token_beyond_the_vocabulary_names_source_window_and_file(tmp_path: Path, wrong: int) -> None:
    for name in ("train", "validation"):
        tokens = np.ones(5 * LENGTH + 1, np.int32)
        tokens[2 * LENGTH + 3] = wrong
        with IndexedWriter(tmp_path / name, token_type(100_000)) as writer:
            writer.add(tokens, [len(tokens)])
            writer.commit()
    train, validation = (_range(tmp_path, name, [5 * LENGTH + 1]) for name in ("train", "validation"))
    batches = _batches(_corpus({"fr": (train, 1.0)}, validation), global_batch=5)
    place = rf"data.sources.fr: window 2 \(tokens 16 to 24 of .*{{}}.bin\) holds the token {wrong};.* 60001 entries"
    with pytest.raises(DamagedError, match=place.format("train")):
        batches.batch(0, 0, 5)
    with pytest.raises(DamagedError, match=place.format("validation")):
        batches.validation_batch("fr", LENGTH, 0, 5)
    assert batches.validation_batch("fr", LENGTH, 0, 2).tokens.shape == (2, LENGTH)


def test_seeds_differ(corpus: PreparedCorpus) -> None:
    assert not np.array_equal(_batches(corpus, seed=1).batch(0, 0, 6).tokens, _batches(corpus).batch(0, 0, 6).tokens)


def test_validation_rows_hold_every_token_once(corpus: PreparedCorpus) -> None:
    batches = _batches(corpus)
    assert batches.validation("de", LENGTH) == 3
    batch = batches.validation_batch("de", LENGTH, 0, 3)
    predicted = batch.targets[batch.targets != IGNORED]
    tokens = np.arange(1, 22)
    inside = [t for t in tokens if t not in (5, 15, 21)]  # EOS stands there
    assert predicted.tolist() == [t if t in inside else EOS for t in tokens if t not in (1, 6, 16)]
    assert batch.tokens[2].tolist() == [17, 18, 19, 20, EOS, EOS, EOS, EOS]
    assert batch.targets[2].tolist() == [18, 19, 20, EOS] + [IGNORED] * 4
    assert batch.documents[2].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


def test_validation_rows_beyond_the_end(corpus: PreparedCorpus) -> None:
    batches = _batches(corpus)
    assert batches.validation_batch("fr", LENGTH, 3, 0).tokens.shape == (0, LENGTH)
    with pytest.raises(IndexError, match="fr has 3 validation rows, not 4"):
        batches.validation_batch("fr", LENGTH, 2, 2)


def test_a_source_without_validation(tmp_path: Path) -> None:
    _write(tmp_path, "de", _lengths(0))
    batches = _batches(_corpus({"de": (_range(tmp_path, "de", _lengths(0)), 1.0)}))
    assert batches.validation("de", LENGTH) == 0


def test_a_range_of_documents_is_read_and_nothing_else(tmp_path: Path) -> None:
    lengths = _lengths(0)
    tokens = _write(tmp_path, "de", lengths)
    begin = sum(lengths[:150])
    batches = _batches(_corpus({"de": (_range(tmp_path, "de", lengths, first=150), 1.0)}))
    seen = np.unique(np.concatenate([batches.batch(step, 0, 6).tokens.ravel() for step in range(100)]))
    assert set(seen.tolist()) <= set(tokens[begin:].tolist())


def test_a_source_shorter_than_one_window_is_refused_with_both_numbers(tmp_path: Path) -> None:
    _write(tmp_path, "de", [LENGTH])
    with pytest.raises(UserError, match=r"data.sources.de has 8 training tokens; one window needs 9"):
        _batches(_corpus({"de": (_range(tmp_path, "de", [LENGTH]), 1.0)}))
