"""Digests of files, remembered so that a large unchanged corpus is not read again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from aiftrain.data.digests import FileDigests


def _compute(memory: Path, files: list[Path]) -> tuple[dict[Path, str], int]:
    """The digests, and how many bytes were read for them."""
    read: list[int] = []
    return FileDigests(memory).compute(files, threads=2, advance=read.append), sum(read)


def _old_file(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    os.utime(file, (1_000_000_000, 1_000_000_000))
    return file


def test_an_unchanged_file_is_read_once(tmp_path: Path) -> None:
    file = _old_file(tmp_path / "a", b"text")
    expected = {file: hashlib.sha256(b"text").hexdigest()}
    assert FileDigests(tmp_path / "memory").known([file]) is None
    assert _compute(tmp_path / "memory", [file]) == (expected, 4)
    assert _compute(tmp_path / "memory", [file]) == (expected, 0)
    assert FileDigests(tmp_path / "memory").known([file]) == expected


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    file = _old_file(tmp_path / "a", b"text")
    _compute(tmp_path / "memory", [file])
    file.write_bytes(b"next")
    assert FileDigests(tmp_path / "memory").known([file]) is None
    assert _compute(tmp_path / "memory", [file]) == ({file: hashlib.sha256(b"next").hexdigest()}, 4)


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path) -> None:
    """It could change again without a new time stamp."""
    (tmp_path / "a").write_bytes(b"text")
    _compute(tmp_path / "memory", [tmp_path / "a"])
    assert FileDigests(tmp_path / "memory").known([tmp_path / "a"]) is None
