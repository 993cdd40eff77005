"""Megatron's .bin/.idx layout: read, written, and refused where it is damaged."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.data.indexed import IndexedTokens, IndexedWriter, token_type
from aiftrain.errors import DamagedError, UserError


def _pair_of_two_documents(folder: Path) -> Path:
    """Three sequences, [1 2 3], [4] and [5 6], in two documents, written byte by byte: the first has two of them."""
    prefix = folder / "megatron"
    (folder / "megatron.bin").write_bytes(bytes.fromhex("0100 0200 0300 0400 0500 0600"))
    (folder / "megatron.idx").write_bytes(
        b"MMIDIDX\x00\x00"
        + bytes.fromhex("0100000000000000")  # version 1
        + bytes.fromhex("08")  # uint16
        + bytes.fromhex("0300000000000000")  # sequences
        + bytes.fromhex("0300000000000000")  # document entries
        + bytes.fromhex("03000000 01000000 02000000")  # lengths
        + bytes.fromhex("0000000000000000 0600000000000000 0800000000000000")  # byte offsets
        + bytes.fromhex("0000000000000000 0200000000000000 0300000000000000")  # where documents begin
    )
    return prefix


def test_reads_a_file_laid_out_by_hand(tmp_path: Path) -> None:
    tokens = IndexedTokens(_pair_of_two_documents(tmp_path))
    tokens.check()
    assert (tokens.dtype, tokens.sequences, tokens.documents) == (np.dtype("uint16"), 3, 2)
    assert tokens.tokens.tolist() == [1, 2, 3, 4, 5, 6]
    assert tokens.document(0).tolist() == [1, 2, 3, 4]
    assert tokens.document(1).tolist() == [5, 6]
    assert tokens.document_starts(np.array([0, 1, 2])).tolist() == [0, 4, 6]


def test_writes_the_same_bytes_as_laid_out_by_hand(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "ours", np.dtype("<u2")) as writer:
        writer.add(np.array([7, 8, 9]), [2, 1])
        writer.commit()
    assert (tmp_path / "ours.bin").read_bytes() == struct.pack("<3H", 7, 8, 9)
    expected = struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 8, 2, 3)
    expected += struct.pack("<2i", 2, 1) + struct.pack("<2q", 0, 4) + struct.pack("<3q", 0, 1, 2)
    assert (tmp_path / "ours.idx").read_bytes() == expected


@pytest.mark.parametrize(("entries", "name"), [(65_499, "uint16"), (65_500, "int32"), (128_000, "int32")])
def test_token_type_follows_the_vocabulary(entries: int, name: str) -> None:
    assert token_type(entries) == np.dtype(name)


def test_int32_tokens_survive(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "wide", token_type(200_000)) as writer:
        writer.add(np.array([199_999, 0]), [2])
        writer.commit()
    assert IndexedTokens(tmp_path / "wide").tokens.tolist() == [199_999, 0]


def test_reads_the_modes_that_multimodal_files_append(tmp_path: Path) -> None:
    prefix = _pair_of_two_documents(tmp_path)
    with (tmp_path / "megatron.idx").open("ab") as stream:
        stream.write(b"\x00\x00\x01")
    tokens = IndexedTokens(prefix)
    tokens.check()
    assert tokens.documents == 2


@given(st.lists(st.integers(0, 5), max_size=40))
def test_finds_the_document_of_every_token(tmp_path_factory: pytest.TempPathFactory, lengths: list[int]) -> None:
    prefix = tmp_path_factory.mktemp("documents") / "pair"
    with IndexedWriter(prefix, np.dtype("<u2")) as writer:
        writer.add(np.zeros(sum(lengths)), lengths)
        writer.commit()
    tokens = IndexedTokens(prefix)
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    expected = [sum(start <= position for start in starts) for position in range(sum(lengths))]
    assert tokens.documents_before(np.arange(sum(lengths))).tolist() == expected


def test_finds_documents_of_an_index_too_large_for_memory(tmp_path: Path) -> None:
    lengths = np.random.default_rng(0).integers(0, 4, (1 << 20) + 1000)
    with IndexedWriter(tmp_path / "many", np.dtype("<u2")) as writer:
        writer.add(np.zeros(lengths.sum()), lengths)
        writer.commit()
    positions = np.random.default_rng(1).integers(0, lengths.sum(), 1000)
    starts = np.cumsum(lengths) - lengths
    expected = np.searchsorted(starts, positions, side="right")
    assert np.array_equal(IndexedTokens(tmp_path / "many").documents_before(positions), expected)


def test_an_unfinished_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), IndexedWriter(tmp_path / "pair", np.dtype("<u2")) as writer:
        writer.add(np.array([1]), [1])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_bin_of_the_wrong_size_is_damaged(tmp_path: Path) -> None:
    prefix = _pair_of_two_documents(tmp_path)
    (tmp_path / "megatron.bin").write_bytes(b"\x01\x00\x02\x00")
    with pytest.raises(DamagedError, match=r"megatron.bin has 4 bytes, but its index megatron.idx tells of 12"):
        IndexedTokens(prefix)


def test_an_index_cut_short_is_damaged(tmp_path: Path) -> None:
    prefix = _pair_of_two_documents(tmp_path)
    index = tmp_path / "megatron.idx"
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(DamagedError, match="it has 93 bytes and its header tells of 94"):
        IndexedTokens(prefix)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [(34, 2, "do not follow each other"), (54, 0, "do not follow each other"), (78, 4, "out of order")],
)
def test_check_finds_an_index_that_contradicts_itself(tmp_path: Path, position: int, value: int, message: str) -> None:
    prefix = _pair_of_two_documents(tmp_path)
    content = bytearray((tmp_path / "megatron.idx").read_bytes())
    content[position] = value
    (tmp_path / "megatron.idx").write_bytes(content)
    with pytest.raises(DamagedError, match=message):
        IndexedTokens(prefix).check()


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, ord("X"), "is no Megatron index"),
        (9, 2, "has version 2 of Megatron's index; version 1 can be read"),
        (17, 7, "tokens of type code 7"),
    ],
)
def test_refuses_what_is_no_index(tmp_path: Path, position: int, value: int, message: str) -> None:
    prefix = _pair_of_two_documents(tmp_path)
    content = bytearray((tmp_path / "megatron.idx").read_bytes())
    content[position] = value
    (tmp_path / "megatron.idx").write_bytes(content)
    with pytest.raises(UserError, match=message):
        IndexedTokens(prefix)


def test_a_missing_bin_is_named(tmp_path: Path) -> None:
    prefix = _pair_of_two_documents(tmp_path)
    (tmp_path / "megatron.bin").unlink()
    with pytest.raises(UserError, match=r"cannot read .*megatron.bin"):
        IndexedTokens(prefix)
