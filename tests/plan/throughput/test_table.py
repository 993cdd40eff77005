"""What the cells of a table may hold, and which tables are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.errors import UserError
from aiftrain.plan.throughput.table import CannotSay, Cells, read_rows

HEADER = "id,hardware,gpus,model"


def cells(word: str, key: str = "gpus") -> Cells:
    return Cells({key: word})


@pytest.mark.parametrize(
    ("word", "number"), [("8", 8), ("8.0", 8), ("1e3", 1000), ("1,024", 1024), ("32k", 32_000), ("1 M", 1_000_000)]
)
def test_numbers_are_read_as_people_write_them(word: str, number: int) -> None:
    assert cells(word).whole("gpus") == number


@pytest.mark.parametrize("word", ["", "n/a", "N/A", "nan", "-", "?", "unknown", "none"])
def test_cells_that_say_nothing_are_empty(word: str) -> None:
    assert cells(word).whole("gpus") is None


def test_a_missing_column_is_empty() -> None:
    assert Cells({}).number("gpus") is None


@pytest.mark.parametrize(
    "word", ["0", "-8", "8.5", "1e-3", "1e400", "eight", "8 GPUs", "7,5", "\u0668", "inf", "1e12", "½"]
)
def test_what_is_no_count_is_refused_with_its_column(word: str) -> None:
    with pytest.raises(CannotSay, match=f"gpus is .*{word}.*expected"):
        cells(word).whole("gpus")


def test_more_layers_than_any_model_has_are_refused() -> None:
    with pytest.raises(CannotSay, match="layers"):
        cells("1000000", "layers").whole("layers")


@given(word=st.text(max_size=12))
def test_no_text_ends_in_a_traceback(word: str) -> None:
    try:
        number = cells(word).number("gpus")
    except CannotSay:
        return
    assert number is None or number >= 0


def test_what_is_assumed_is_kept() -> None:
    one = cells("")
    assert one.assume("micro-batches of 1", 1) == 1
    assert one.assumed == ["micro-batches of 1"]


def test_a_byte_order_mark_blanks_and_more_cells_than_columns_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text(f"\ufeff{HEADER}, tp \na, H100 ,8,GPT,2,more,cells\n\nb\n", encoding="utf-8")
    first, second = read_rows(file)
    assert first == {"id": "a", "hardware": "H100", "gpus": "8", "model": "GPT", "tp": "2"}
    assert second == {"id": "b", "hardware": "", "gpus": "", "model": "", "tp": ""}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"id;hardware;gpus;model\n", "no column id, hardware, gpus, model: its first line names id;hardware"),
        (b"id,hardware,model\nx,H100,GPT\n", "no column gpus"),
        (b"\xff\xfe\x00i\x00d", "cannot be read"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "table.csv"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_rows(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv cannot be read"):
        read_rows(tmp_path / "none.csv")
    with pytest.raises(UserError, match="cannot be read"):
        read_rows(tmp_path)
