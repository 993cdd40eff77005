"""A look into a prepared corpus."""

from __future__ import annotations

from pathlib import Path

from aiftrain.data.excerpts import inspect
from aiftrain.data.prepare import prepare
from tests.data.corpora import data_spec, texts, write_lines


def test_excerpts_are_taken_from_all_sources_in_turn(tmp_path: Path) -> None:
    sources = {
        name: write_lines(tmp_path / f"{name}.jsonl", texts(60, seed, words=90))
        for seed, name in enumerate(("de", "fr"))
    }
    corpus = prepare(data_spec(tmp_path, sources), vocab_size=300, seed=0)
    excerpts = inspect(corpus, 5)
    assert [excerpt.source for excerpt in excerpts] == ["de", "fr", "de", "fr", "de"]
    assert len({excerpt.document for excerpt in excerpts if excerpt.source == "de"}) == 3
    for excerpt in excerpts:
        number = "0" if excerpt.source == "de" else "1"
        assert excerpt.text.startswith(f"Text {number}-")
        assert excerpt.tokens > 120
    assert inspect(corpus, 0) == []
