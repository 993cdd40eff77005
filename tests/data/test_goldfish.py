"""The goldfish loss: gaps that the text alone decides, wherever and however it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from aiftrain.data.batches import IGNORED, Batches
from aiftrain.data.corpus import PreparedCorpus, PreparedSource, PreparedTokenizer, TokenRange
from aiftrain.data.goldfish import left_out
from aiftrain.data.indexed import IndexedWriter, token_type
from aiftrain.run.corpus import GoldfishSpec
from aiftrain.run.timeline import Phase, Timeline

WIDTH = 5
DOCUMENTS = 40
EACH = 50  # tokens of a document


@pytest.fixture
def documents(tmp_path: Path) -> NDArray[np.int64]:
    """[documents, tokens]; the first half stands a second time behind it, in another order."""
    half = np.random.default_rng(0).integers(1, 1000, (DOCUMENTS // 2, EACH))
    tokens = np.concatenate([half, half[::-1]])
    with IndexedWriter(tmp_path / "text", token_type(1000)) as writer:
        writer.add(tokens.ravel(), [EACH] * DOCUMENTS)
        writer.commit()
    return tokens


def _batches(folder: Path, length: int, goldfish: GoldfishSpec | None) -> Batches:
    part = TokenRange(prefix=folder / "text", first_document=0, documents=DOCUMENTS, tokens=DOCUMENTS * EACH)
    source = PreparedSource(train=part, validation=part, weight=1.0, language=None, digest="", unigram_loss=1.0)
    tokenizer = PreparedTokenizer(path=Path("none.json"), digest="", vocab_size=1000, eos_id=0)
    corpus = PreparedCorpus(name="test", tokenizer=tokenizer, sources={"de": source}, unigram_loss=1.0, digest="")
    phase = Phase(None, global_batch=1, micro_batch=1, sequence_length=length, rope_theta=1e4)
    return Batches(corpus, Timeline((phase,), total_steps=1), vocab_size=1000, seed=0, goldfish=goldfish)


def _kept(folder: Path, documents: NDArray[np.int64], length: int, one_in: int = 4) -> NDArray[np.bool_]:
    """[documents, tokens]: whether a loss is taken of each, when all is read in windows of `length`."""
    batches = _batches(folder, length, GoldfishSpec(one_in=one_in, width=WIDTH))
    text = documents.ravel().tolist()
    kept, places = np.zeros(documents.size, np.bool_), list(range(0, documents.size, length))
    for step in range((documents.size - 1) // length):
        batch = batches.batch(step, 0, 1)
        row = batch.tokens[0].tolist()
        begin = next(at for at in places if text[at : at + length] == row)
        places.remove(begin)
        kept[begin + 1 : begin + length + 1] = batch.targets[0] != IGNORED
    return kept.reshape(documents.shape)


def test_gaps_are_the_same_in_windows_of_every_length(tmp_path: Path, documents: NDArray[np.int64]) -> None:
    whole = (documents.size - 1) // 64 * 64  # what windows of both lengths reach
    one, other = (_kept(tmp_path, documents, length).ravel()[1 : whole + 1] for length in (16, 64))
    assert np.array_equal(one, other)


def test_a_passage_has_the_same_gaps_in_every_document(tmp_path: Path, documents: NDArray[np.int64]) -> None:
    kept = _kept(tmp_path, documents, 10)
    first, again = kept[: DOCUMENTS // 2], kept[DOCUMENTS // 2 :][::-1]
    assert np.array_equal(first[1:], again[1:]), "but for the first document, which the second time is cut at the end"


def test_gaps_are_as_many_as_asked_for_and_spare_the_beginning(tmp_path: Path, documents: NDArray[np.int64]) -> None:
    kept = _kept(tmp_path, documents, 10)[1:-1]
    assert not kept[:, 0].any(), "the first token of a document is nobody's target"
    assert kept[:, 1:WIDTH].all()
    assert 1 - kept[:, WIDTH:].mean() == pytest.approx(1 / 4, abs=0.03)


def test_gaps_depend_on_the_tokens_before_and_on_nothing_else() -> None:
    """After equal passages inside unequal documents they are equal: a hash of `width` tokens, not of the document."""
    rows = np.random.default_rng(1).integers(1, 1000, (2, 200))
    rows[1, 100:150] = rows[0, 20:70]
    gaps = left_out(rows, np.zeros(rows.shape, np.bool_), np.zeros(2, np.int64), GoldfishSpec(one_in=3, width=7))
    assert gaps.any()
    assert np.array_equal(gaps[0, 20 : 70 - 6], gaps[1, 100 : 150 - 6])
    assert not np.array_equal(gaps[0, :50], gaps[1, :50])


def test_validation_has_the_whole_loss(tmp_path: Path, documents: NDArray[np.int64]) -> None:
    plain, goldfish = (_batches(tmp_path, 10, spec) for spec in (None, GoldfishSpec(one_in=2, width=WIDTH)))
    one, other = (batches.validation_batch("de", 10, 0, 20) for batches in (plain, goldfish))
    assert np.array_equal(one.targets, other.targets)
    trained = [batches.batch(0, 0, 1) for batches in (plain, goldfish)]
    assert np.array_equal(trained[0].tokens, trained[1].tokens)
    assert np.array_equal(trained[0].documents, trained[1].documents)


def test_what_stands_before_the_first_text_of_a_source_decides_nothing() -> None:
    rows = np.random.default_rng(2).integers(1, 1000, (50, 30))
    spec = GoldfishSpec(one_in=2, width=4)
    gaps = left_out(rows, np.zeros(rows.shape, np.bool_), np.full(50, 10), spec)
    assert not gaps[:, :10].any(), "the first ten have something of the first ten columns before them"
    assert gaps[:, 10].any()
