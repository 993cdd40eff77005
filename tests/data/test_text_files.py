"""Documents from .txt, .jsonl, .jsonl.zst and .parquet, and a clear message for each thing wrong with them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import zstandard

from aiftrain.data.spans import make_units
from aiftrain.data.text_files import next_cut, text_documents
from aiftrain.errors import UserError
from aiftrain.run.corpus import SourceSpec
from tests.data.corpora import texts, whole, write_lines

needs_parquet = pytest.mark.skipif(find_spec("pyarrow") is None, reason='python -m pip install "aiftrain[parquet]"')


def _spec(**settings: Any) -> SourceSpec:
    return SourceSpec(path="unused", **settings)


def _read(file: Path, **settings: Any) -> list[str | None]:
    return list(text_documents(whole(file), _spec(**settings)))


def _file(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _table(folder: Path, **columns: list[Any]) -> Path:
    from pyarrow import parquet, table

    parquet.write_table(table(columns), folder / "table.parquet")
    return folder / "table.parquet"


def test_a_text_file_is_one_document_as_it_is(tmp_path: Path) -> None:
    file = _file(tmp_path, "a.txt", "  Größe\r\n\n zwei \n".encode())
    assert _read(file) == ["  Größe\r\n\n zwei \n"]


def test_lines_are_documents(tmp_path: Path) -> None:
    file = _file(tmp_path, "a.txt", b"one\r\n\n  \ntwo\nthree")
    assert _read(file, split="line") == ["one", "two", "three"]


def test_blank_lines_part_documents(tmp_path: Path) -> None:
    file = _file(tmp_path, "a.txt", b"\n\none\nmore\n\n \ntwo\n")
    assert _read(file, split="blank-line") == ["one\nmore", "two"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert _read(_file(tmp_path, "a.txt", b"\xef\xbb\xbfone")) == ["one"]


def test_json_lines(tmp_path: Path) -> None:
    file = _file(
        tmp_path, "a.jsonl", b'{"text": "one"}\n\n{"text": "zw\\u00f6lf", "id": 3}\n{"text": null}\n{"text": " "}'
    )
    assert [text for text in _read(file) if text] == ["one", "zwölf"]


def test_compressed_json_lines_in_several_frames(tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "a.jsonl", texts(3000)).read_bytes()
    half = len(lines) // 2
    packed = zstandard.compress(lines[:half]) + zstandard.compress(lines[half:])
    assert _read(_file(tmp_path, "a.jsonl.zst", packed)) == texts(3000)


@needs_parquet
def test_parquet_rows(tmp_path: Path) -> None:
    rows = [*texts(3000), None, ""]
    file = _table(tmp_path, text=rows, id=list(range(3002)))
    assert _read(file) == [*texts(3000), None, None]


def test_another_key(tmp_path: Path) -> None:
    assert _read(_file(tmp_path, "a.jsonl", b'{"content": "one"}\n'), text_key="content") == ["one"]


@needs_parquet
def test_another_column(tmp_path: Path) -> None:
    assert _read(_table(tmp_path, content=["two"]), text_key="content") == ["two"]


@pytest.mark.parametrize(
    ("name", "settings", "glue"),
    [("a.jsonl", {}, ""), ("a.txt", {"split": "line"}, "\n"), ("a.txt", {"split": "blank-line"}, "\nmore\n\n \n")],
)
def test_a_file_cut_into_units_gives_the_same_documents(
    tmp_path: Path, name: str, settings: dict[str, Any], glue: str
) -> None:
    file = tmp_path / name
    documents = texts(9000)
    if name == "a.jsonl":
        write_lines(file, documents)
    else:
        file.write_text(glue.join(documents), encoding="utf-8")
    spec = _spec(**settings)
    units = make_units([(file, file.stat().st_size)], lambda path, position: next_cut(path, position, spec))
    assert len(units) > 2
    parts = [text for unit in units for span in unit for text in text_documents(span, spec)]
    assert parts == list(text_documents(whole(file), spec))
    assert len(parts) == 9000


BROKEN = b"good\nb\xffd\nfine\n"


def test_broken_text_is_refused_with_its_place(tmp_path: Path) -> None:
    file = _file(tmp_path, "a.txt", BROKEN)
    with pytest.raises(UserError, match=r"a.txt: byte 6 \(0xff\) is not UTF-8.*broken_text=replace"):
        _read(file, split="line")


def test_broken_text_in_the_second_unit_is_named_by_its_place_in_the_file(tmp_path: Path) -> None:
    file = _file(tmp_path, "a.jsonl", b'{"text": "one"}\n{"text": "\xff"}\n')
    with pytest.raises(UserError, match="byte 26 "):
        list(text_documents(whole(file)._replace(start=16), _spec()))


def test_broken_text_is_replaced_or_left_out_on_demand(tmp_path: Path) -> None:
    file = _file(tmp_path, "a.txt", BROKEN)
    assert _read(file, split="line", broken_text="replace") == ["good", "b\ufffdd", "fine"]
    assert _read(file, split="line", broken_text="skip") == ["good", None, "fine"]


def test_half_a_surrogate_pair_is_broken_text(tmp_path: Path) -> None:
    file = _file(tmp_path, "a.jsonl", b'{"text": "a\\ud800b"}\n')
    with pytest.raises(UserError, match=r"a.jsonl, line 1: half of a surrogate pair"):
        _read(file)
    assert _read(file, broken_text="replace") == ["a?b"]
    assert _read(file, broken_text="skip") == [None]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{text: 1}", r"line 3: Expecting property name"),
        (b'["text"]', r"line 3: a JSON object with the field 'text' is needed, this is list"),
        (b'{"id": 1, "body": ""}', r"line 3: no field 'text'; there are 'id', 'body': set text_key"),
        (b'{"text": 7}', r"line 3: the field 'text' holds int, not text"),
        (b"[" * 100_000, r"line 3: maximum recursion"),
    ],
)
def test_a_wrong_json_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    file = _file(tmp_path, "a.jsonl", b'{"text": "one"}\n{"text": "two"}\n' + line + b"\n")
    with pytest.raises(UserError, match=message):
        _read(file)
    with pytest.raises(UserError, match=message):
        list(text_documents(whole(file)._replace(start=16), _spec()))


def test_damaged_compression_is_named(tmp_path: Path) -> None:
    packed = zstandard.compress(b'{"text": "one"}\n' * 1000)
    with pytest.raises(UserError, match=r"cut.jsonl.zst is cut short"):
        _read(_file(tmp_path, "cut.jsonl.zst", packed[:-3]))
    with pytest.raises(UserError, match=r"none.jsonl.zst is damaged or no zstandard file"):
        _read(_file(tmp_path, "none.jsonl.zst", b"plain text, really"))


@needs_parquet
def test_a_wrong_parquet_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.parquet is damaged or no Parquet file"):
        _read(_file(tmp_path, "a.parquet", b"no table"))
    with pytest.raises(UserError, match=r"no column 'text'; there are 'body': set text_key"):
        _read(_table(tmp_path, body=["a"]))
    with pytest.raises(UserError, match=r"the column 'text' holds int64, not text"):
        _read(_table(tmp_path, text=[1]))
    with pytest.raises(UserError, match=r"table.parquet, row 2: byte 1 \(0xff\) is not UTF-8"):
        _read(_table(tmp_path, text=[b"a", b"b\xff"]))
