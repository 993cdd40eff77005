"""Tokenizers: trained, loaded from both formats, and refused."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from aiftrain.data.sources import Source, find_source
from aiftrain.data.tokenizer import END_OF_DOCUMENT, load_tokenizer
from aiftrain.data.tokenizer_training import sample, train_tokenizer
from aiftrain.errors import UserError
from aiftrain.run.corpus import SourceSpec
from tests.data.corpora import texts, write_lines

needs_sentencepiece = pytest.mark.skipif(
    find_spec("sentencepiece") is None, reason='python -m pip install "aiftrain[sentencepiece]"'
)


def _source(folder: Path, name: str, count: int, seed: int = 0) -> Source:
    return find_source(name, SourceSpec(path=str(write_lines(folder / f"{name}.jsonl", texts(count, seed)))))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    file = tmp_path / "tokenizer.json"
    train_tokenizer([_source(tmp_path, "de", 300)], file, vocab_size=320, train_bytes=50_000)
    return file


def test_training_gives_the_size_asked_for_and_an_end_of_document(trained: Path) -> None:
    tokenizer = load_tokenizer(trained)
    assert tokenizer.vocab_size == 320
    assert tokenizer.decode([tokenizer.eos_id]) == END_OF_DOCUMENT


def test_every_text_comes_back(trained: Path) -> None:
    tokenizer = load_tokenizer(trained)
    for text in ("Größe über alles", "\t\r\n  \x00", "мир 🙂 日本", "<|endoftext|>", ""):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.eos_id not in tokenizer.encode(text)
    assert tokenizer.encode_batch(["eins", "zwei"]) == [tokenizer.encode("eins"), tokenizer.encode("zwei")]


def test_training_is_deterministic(tmp_path: Path, trained: Path) -> None:
    again = tmp_path / "again.json"
    train_tokenizer([_source(tmp_path, "de", 300)], again, vocab_size=320, train_bytes=50_000)
    assert again.read_bytes() == trained.read_bytes()


def test_the_sample_is_shared_evenly_by_large_and_small_sources(tmp_path: Path) -> None:
    sources = [_source(tmp_path, "large", 900), _source(tmp_path, "middle", 800, 1), _source(tmp_path, "small", 10, 2)]
    budget = 40_000
    by_source = {name: 0 for name in ("0", "1", "2")}
    for text in filter(lambda text: text.startswith("Text "), sample(sources, budget)):  # the rest are short ends
        by_source[text[5]] += len(text.encode())
    small = sum(len(text.encode()) for text in texts(10, 2))
    assert by_source["2"] == small
    assert by_source["0"] == pytest.approx((budget - small) / 2, rel=0.05)
    assert by_source["1"] == pytest.approx((budget - small) / 2, rel=0.05)
    assert sum(by_source.values()) <= budget


def test_the_sample_hears_all_files_of_a_source(tmp_path: Path) -> None:
    for number in range(20):
        write_lines(tmp_path / "many" / f"{number:02d}.jsonl", texts(50, seed=number))
    source = find_source("many", SourceSpec(path=str(tmp_path / "many")))
    heard = {text.partition("-")[0] for text in sample([source], source.size // 5) if "-" in text}
    assert len(heard) == 20


def test_truncation_and_padding_of_a_file_are_not_obeyed(trained: Path) -> None:
    tokenizer = Tokenizer.from_file(str(trained))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(trained))
    loaded = load_tokenizer(trained)
    lengths = [len(ids) for ids in loaded.encode_batch(["x", "eine längere Zeile"])]
    assert lengths == [1, len(loaded.encode("eine längere Zeile"))]
    assert lengths[1] > 4


def test_the_config_beside_the_file_names_the_end(trained: Path) -> None:
    config = trained.with_name("tokenizer_config.json")
    config.write_text(json.dumps({"eos_token": {"content": "!"}}))
    assert load_tokenizer(trained).eos_id == Tokenizer.from_file(str(trained)).token_to_id("!")
    config.write_text("no JSON")
    with pytest.raises(UserError, match=r"cannot read .*tokenizer_config.json"):
        load_tokenizer(trained)


@needs_sentencepiece
def test_sentencepiece(tmp_path: Path) -> None:
    import sentencepiece

    (tmp_path / "text").write_text("\n".join(texts(200)), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "sp"), vocab_size=80, minloglevel=2
    )
    tokenizer = load_tokenizer(tmp_path / "sp.model")
    assert (tokenizer.vocab_size, tokenizer.eos_id) == (80, 2)
    assert tokenizer.decode(tokenizer.encode("der Rechner lernt")) == "der Rechner lernt"
    assert tokenizer.encode_batch(["die Größe"]) == [tokenizer.encode("die Größe")]


@needs_sentencepiece
def test_a_file_that_is_no_sentencepiece_model(tmp_path: Path) -> None:
    (tmp_path / "a.model").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"a.model is no SentencePiece model"):
        load_tokenizer(tmp_path / "a.model")


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*tokenizer.json: No such file"):
        load_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match=r"give a tokenizer.json or a SentencePiece .model file"):
        load_tokenizer(tmp_path / "vocab.txt")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(UserError, match=r"a.json is no tokenizer.json"):
        load_tokenizer(tmp_path / "a.json")
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "b.json"))
    with pytest.raises(UserError, match=r"b.json has no token that ends a document; looked for <|endoftext|>, </s>"):
        load_tokenizer(tmp_path / "b.json")
