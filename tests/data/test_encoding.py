"""Encoding of documents: very long ones in pieces, equal ones with equal hashes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aiftrain.data.encoding import Job, document_hash, encode_unit, hashes_file
from aiftrain.data.indexed import IndexedTokens
from aiftrain.data.sources import find_source
from aiftrain.data.tokenizer import load_tokenizer
from aiftrain.data.tokenizer_training import train_tokenizer
from aiftrain.data.workers import Workers
from aiftrain.run.corpus import SourceSpec
from tests.data.corpora import texts, write_lines


@pytest.mark.parametrize("glue", ["\n", "\n  ", " "])
def test_a_very_long_document_gives_the_same_tokens_as_encoded_whole(tmp_path: Path, glue: str) -> None:
    text = glue.join(texts(6000))
    assert len(text) > 1 << 20
    (tmp_path / "long.txt").write_text(text, encoding="utf-8", newline="")
    source = find_source("long", SourceSpec(path=str(tmp_path / "long.txt")))
    train_tokenizer([source], tmp_path / "tokenizer.json", vocab_size=400, train_bytes=50_000)
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    job = Job(spec=source.spec, tokenizer=tokenizer.path, folder=tmp_path, seed=0)
    encode_unit(job, 0, source.units()[0], tokenizer)
    assert IndexedTokens(job.prefix(0)).tokens.tolist() == [*tokenizer.encode(text), tokenizer.eos_id]


def test_a_worker_that_dies_with_nothing_to_do_is_not_missed(tmp_path: Path) -> None:
    source = find_source("s", SourceSpec(path=str(write_lines(tmp_path / "s.jsonl", texts(9_000)))))
    train_tokenizer([source], tmp_path / "tokenizer.json", vocab_size=300, train_bytes=50_000)
    job = Job(spec=source.spec, tokenizer=tmp_path / "tokenizer.json", folder=tmp_path, seed=0)
    first, *rest = source.units()
    with Workers(job, 2) as pool:
        finished = pool.encode([(0, first), (1, [span for unit in rest for span in unit])])
        next(finished)
        [idle] = [process for process in pool._processes if process.pid not in pool._at_work]
        idle.kill()
        idle.wait()
        assert len(list(finished)) == 1


def test_hashes_are_decided_by_text_and_seed_alone(tmp_path: Path) -> None:
    source = find_source("s", SourceSpec(path=str(write_lines(tmp_path / "s.jsonl", ["eins", "zwei", "eins"]))))
    train_tokenizer([source], tmp_path / "tokenizer.json", vocab_size=258, train_bytes=50_000)
    job = Job(spec=source.spec, tokenizer=tmp_path / "tokenizer.json", folder=tmp_path, seed=7)
    encode_unit(job, 0, source.units()[0], load_tokenizer(job.tokenizer))
    hashes = np.load(hashes_file(job.prefix(0)))
    assert hashes.tolist() == [document_hash(text, 7) for text in ("eins", "zwei", "eins")]
    assert hashes[0] == hashes[2] != hashes[1]
    assert document_hash("eins", 7) != document_hash("eins", 8)
