"""Preparation: what comes out, when it is used again, and what is said when it cannot be done."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from aiftrain.data.indexed import IndexedTokens, IndexedWriter, token_type
from aiftrain.data.prepare import PreparedCorpus, prepare, prepared
from aiftrain.data.tokenizer import load_tokenizer
from aiftrain.errors import DamagedError, MachineError, UserError
from aiftrain.run.corpus import DataSpec, SourceSpec, TokenizerSpec
from tests.data.corpora import data_spec, texts, write_lines


def _prepare(data: DataSpec, vocab_size: int = 300, seed: int = 0) -> PreparedCorpus:
    return prepare(data, vocab_size=vocab_size, seed=seed)


def _documents(corpus: PreparedCorpus, source: str = "de") -> tuple[list[str], list[str]]:
    """The decoded training and validation documents; each must end with the end-of-document token."""
    tokenizer = load_tokenizer(corpus.tokenizer.path)
    sides: list[list[str]] = []
    for part in (corpus.sources[source].train, corpus.sources[source].validation):
        file = IndexedTokens(part.prefix) if part else None
        numbers = range(part.first_document, part.first_document + part.documents) if part else range(0)
        rows = [file.document(number).tolist() for number in numbers if file]
        assert all(row[-1] == corpus.tokenizer.eos_id and row.count(corpus.tokenizer.eos_id) == 1 for row in rows)
        sides.append([tokenizer.decode(row[:-1]) for row in rows])
    return sides[0], sides[1]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "text" / "de.jsonl", texts(500))


def test_every_document_arrives_on_one_side_in_its_order(tmp_path: Path, lines: Path) -> None:
    corpus = _prepare(data_spec(tmp_path, {"de": lines}))
    train, validation = _documents(corpus)
    assert sorted(train + validation) == sorted(texts(500))
    assert train == [text for text in texts(500) if text not in set(validation)]
    assert 25 <= len(validation) <= 75
    source = corpus.sources["de"]
    assert source.validation is not None
    assert (source.train.documents, source.validation.documents) == (len(train), len(validation))
    assert source.train.tokens == len(IndexedTokens(source.train.prefix))


def test_equal_documents_stay_on_one_side(tmp_path: Path) -> None:
    write_lines(tmp_path / "text" / "a.jsonl", texts(300))
    write_lines(tmp_path / "text" / "b.jsonl", texts(300)[::-1])
    train, validation = _documents(_prepare(data_spec(tmp_path, {"de": tmp_path / "text"})))
    assert len(train) + len(validation) == 600
    assert validation
    assert not set(train) & set(validation)


def test_the_seed_chooses_the_validation_documents(tmp_path: Path, lines: Path) -> None:
    data = data_spec(tmp_path, {"de": lines})
    assert set(_documents(_prepare(data))[1]) != set(_documents(_prepare(data, seed=1))[1])


@pytest.mark.parametrize(("documents", "fraction", "held_out"), [(10, 0.001, 1), (9, 1e-9, 0), (200, 0.0, 0)])
def test_small_validation_parts(tmp_path: Path, documents: int, fraction: float, held_out: int) -> None:
    lines = write_lines(tmp_path / "de.jsonl", texts(documents))
    corpus = _prepare(data_spec(tmp_path, {"de": lines}, validation_fraction=fraction))
    validation = corpus.sources["de"].validation
    assert (validation.documents if validation else 0) == held_out
    assert corpus.sources["de"].train.documents == documents - held_out


def test_a_single_document_is_for_training(tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "de.jsonl", texts(1))
    corpus = _prepare(data_spec(tmp_path, {"de": lines}, validation_fraction=0.99))
    assert corpus.sources["de"].train.documents == 1
    assert corpus.sources["de"].validation is None


def test_text_that_spells_the_end_token_does_not_end_a_document(tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "de.jsonl", [f"{text} <|endoftext|> more" for text in texts(20)])
    train, validation = _documents(_prepare(data_spec(tmp_path, {"de": lines})))
    assert sum("<|endoftext|>" in text for text in train + validation) == 20


def _stamps(cache: Path) -> dict[Path, tuple[int, int]]:
    files = [path for path in cache.rglob("*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files if path.name != "files.jsonl"}


def test_a_finished_preparation_is_recognised_and_nothing_is_written(tmp_path: Path, lines: Path) -> None:
    data = data_spec(tmp_path, {"de": lines})
    assert prepared(data, vocab_size=300, seed=0) is None
    _age(lines)
    corpus = _prepare(data)
    before = _stamps(tmp_path / "cache")
    assert _prepare(data) == corpus
    assert prepared(data, vocab_size=300, seed=0) == corpus
    assert _stamps(tmp_path / "cache") == before


def _age(file: Path) -> None:
    """Make a file look old: digests of files that have just changed are not remembered."""
    os.utime(file, (1_000_000_000, 1_000_000_000))


def test_the_same_content_elsewhere_is_recognised(tmp_path: Path, lines: Path) -> None:
    first = _prepare(data_spec(tmp_path, {"de": lines}))
    before = _stamps(tmp_path / "cache")
    moved = write_lines(tmp_path / "moved" / "other.jsonl", texts(500))
    assert _prepare(data_spec(tmp_path, {"de": moved})) == first
    assert _stamps(tmp_path / "cache") == before


def test_changed_content_is_prepared_anew(tmp_path: Path, lines: Path) -> None:
    data = data_spec(tmp_path, {"de": lines})
    first = _prepare(data)
    write_lines(lines, [*texts(500), "one more document"])
    second = _prepare(data)
    assert second.sources["de"].digest != first.sources["de"].digest
    assert sum(map(len, _documents(second))) == 501


def test_a_new_weight_needs_no_new_tokens(tmp_path: Path, lines: Path) -> None:
    other = write_lines(tmp_path / "fr.jsonl", texts(100, seed=1))
    by_size = _prepare(data_spec(tmp_path, {"de": lines, "fr": other}))
    before = _stamps(tmp_path / "cache")
    sources = {
        "de": SourceSpec(path=str(lines), weight=1),
        "fr": SourceSpec(path=str(other), weight=3),
    }
    weighted = _prepare(data_spec(tmp_path, sources))
    assert _stamps(tmp_path / "cache") == before
    assert (weighted.sources["de"].weight, weighted.sources["fr"].weight) == (0.25, 0.75)
    assert weighted.digest != by_size.digest


def test_documents_and_files_left_out_are_counted(tmp_path: Path) -> None:
    write_lines(tmp_path / "text" / "de.jsonl", [*texts(20), "", " "])
    (tmp_path / "text" / "readme.md").touch()
    source = _prepare(data_spec(tmp_path, {"de": tmp_path / "text"})).sources["de"]
    assert (source.documents_left_out, source.files_left_out) == (2, 1)


def test_progress_reaches_the_end(tmp_path: Path, lines: Path) -> None:
    progress = Progress(disable=True)
    prepare(data_spec(tmp_path, {"de": lines}), vocab_size=300, seed=0, progress=progress)
    assert [task.description for task in progress.tasks] == ["reading", "training the tokenizer", "tokenizing de"]
    assert all(task.finished for task in progress.tasks)


# Token files that exist already


def _token_pair(folder: Path, documents: int = 40, entries: int = 300) -> Path:
    rng = np.random.default_rng(0)
    with IndexedWriter(folder / "pair", token_type(entries)) as writer:
        for _ in range(documents):
            writer.add(rng.integers(0, entries, 10), [10])
        writer.commit()
    return folder / "pair"


def _with_tokens(tmp_path: Path, lines: Path, pair: Path) -> DataSpec:
    tokens = SourceSpec(kind="tokens", path=str(pair))
    return data_spec(tmp_path, {"de": SourceSpec(path=str(lines)), "tokens": tokens})


def test_token_files_are_used_in_place(tmp_path: Path, lines: Path) -> None:
    pair = _token_pair(tmp_path)
    source = _prepare(_with_tokens(tmp_path, lines, pair)).sources["tokens"]
    assert source.validation is not None
    assert (source.train.prefix, source.validation.prefix) == (pair, pair)
    assert (source.train.first_document, source.train.documents, source.train.tokens) == (0, 36, 360)
    assert (source.validation.first_document, source.validation.documents, source.validation.tokens) == (36, 4, 40)


def test_tokens_outside_the_vocabulary_are_refused(tmp_path: Path, lines: Path) -> None:
    data = _with_tokens(tmp_path, lines, _token_pair(tmp_path, entries=1000))
    with pytest.raises(UserError, match=r"data.sources.tokens: .*pair.bin holds the token 99\d; .*vocabulary has 300"):
        _prepare(data)


def test_a_damaged_token_file_is_refused_with_both_sizes(tmp_path: Path, lines: Path) -> None:
    pair = _token_pair(tmp_path)
    with (tmp_path / "pair.bin").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(DamagedError, match=r"pair.bin has 801 bytes, but its index pair.idx tells of 800"):
        _prepare(_with_tokens(tmp_path, lines, pair))


def test_token_files_alone_cannot_train_a_tokenizer(tmp_path: Path) -> None:
    data = data_spec(tmp_path, {"t": SourceSpec(kind="tokens", path=str(_token_pair(tmp_path)))})
    with pytest.raises(UserError, match=r"no source has text to train on; data.tokenizer.kind=file"):
        _prepare(data)


# What cannot be done


def test_an_empty_corpus(tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "de.jsonl", ["", "  "])
    with pytest.raises(UserError, match=r"data.sources.de: there is no document in it; 2 were empty or left out"):
        _prepare(data_spec(tmp_path, {"de": lines}))
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UserError, match=r"data.sources.de: there is no document in it"):
        _prepare(data_spec(tmp_path, {"de": tmp_path / "empty.txt"}))


def test_broken_text_is_named_with_its_file_and_byte(tmp_path: Path) -> None:
    (tmp_path / "de.txt").write_bytes(b"gut\xff")
    with pytest.raises(UserError, match=r"de.txt: byte 3 \(0xff\) is not UTF-8"):
        _prepare(data_spec(tmp_path, {"de": tmp_path / "de.txt"}))


def test_a_tokenizer_larger_than_the_model(tmp_path: Path, lines: Path) -> None:
    tokenizer = _prepare(data_spec(tmp_path, {"de": lines})).tokenizer
    data = data_spec(tmp_path, {"de": lines}, tokenizer=TokenizerSpec(kind="file", path=str(tokenizer.path)))
    assert _prepare(data).tokenizer.vocab_size == 300
    with pytest.raises(UserError, match=r"has 300 entries and the model's vocabulary 299: model.vocab_size=300"):
        _prepare(data, vocab_size=299)
    with pytest.raises(UserError, match=r"data.tokenizer.vocab_size is 300 and the model's vocabulary 299"):
        _prepare(data_spec(tmp_path, {"de": lines}), vocab_size=299)


@pytest.mark.parametrize(("name", "content"), [("train.bin", b"\0"), ("record.json", b"{}"), ("counts.npy", b"")])
def test_a_damaged_cache_says_what_to_remove(tmp_path: Path, lines: Path, name: str, content: bytes) -> None:
    data = data_spec(tmp_path, {"de": lines})
    train = _prepare(data).sources["de"].train.prefix
    train.with_name(name).write_bytes(content)
    with pytest.raises(DamagedError, match=f"{train.parent} is damaged; remove it"):
        _prepare(data)


def test_a_cache_that_cannot_be_made(tmp_path: Path, lines: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"cannot write .*file/cache: Not a directory"):
        _prepare(data_spec(tmp_path, {"de": lines}, cache_dir=str(tmp_path / "file" / "cache")))


def test_a_folder_where_nobody_may_write(tmp_path: Path, lines: Path) -> None:
    with pytest.raises(MachineError, match=r"cannot write /sys/aiftrain: (Permission|Operation|Read-only)"):
        _prepare(data_spec(tmp_path, {"de": lines}, cache_dir="/sys/aiftrain"))


PREPARE = """
import sys
from aiftrain.data.prepare import prepare
from aiftrain.errors import AiftrainError
from aiftrain.run.corpus import DataSpec
try:
    print(prepare(DataSpec.model_validate_json(sys.argv[1]), vocab_size=300, seed=0).model_dump_json())
except AiftrainError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("documents", [3_000, 9_000])  # one unit, encoded in this process, and several, in workers
def test_a_disk_that_takes_no_more(tmp_path: Path, documents: int) -> None:
    """The system refuses to let a file grow beyond a size, as it does on a full disk or at the end of a quota."""
    data = data_spec(tmp_path, {"de": write_lines(tmp_path / "de.jsonl", texts(documents))}, workers=2)
    ended = subprocess.run(
        [sys.executable, "-c", PREPARE, data.model_dump_json()],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "cannot write" in ended.stderr
    assert "File too large" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list((tmp_path / "cache").rglob("*.part"))
    assert _prepare(data).sources["de"].train.documents > 0.8 * documents


def test_the_corpus_is_json_and_back(tmp_path: Path, lines: Path) -> None:
    corpus = _prepare(data_spec(tmp_path, {"de": lines}))
    assert PreparedCorpus.model_validate(json.loads(corpus.model_dump_json())) == corpus
