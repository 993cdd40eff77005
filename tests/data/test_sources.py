"""Which files a source stands for, in which order, and what is said where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiftrain.data.sources import find_source, find_sources
from aiftrain.errors import UserError
from aiftrain.run.corpus import SourceSpec


def _names(root: Path, path: str) -> list[str]:
    source = find_source("s", SourceSpec(path=path))
    return [file.relative_to(root).as_posix() for file, _ in source.files]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.txt", "a/z.JSONL", "a/b.jsonl.zst", "Z.parquet", ".hidden.txt", ".git/c.txt", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_a_folder_is_read_to_its_depths_in_the_order_of_names(folder: Path) -> None:
    assert _names(folder, str(folder)) == ["Z.parquet", "a/b.jsonl.zst", "a/z.JSONL", "b.txt"]
    assert find_source("s", SourceSpec(path=str(folder))).left_out == 1


def test_patterns(folder: Path) -> None:
    assert _names(folder, f"{folder}/*.txt") == [".hidden.txt", "b.txt"]
    assert _names(folder, f"{folder}/**/*.jsonl*") == ["a/b.jsonl.zst"]
    assert _names(folder, f"{folder}/[a]") == ["a/b.jsonl.zst", "a/z.JSONL"]


def test_links_to_folders_are_followed_once(folder: Path) -> None:
    (folder / "a" / "up").symlink_to(folder)
    (folder / "corpus").symlink_to(folder / "a")
    found = _names(folder, str(folder))
    assert len([name for name in found if name.endswith("z.JSONL")]) == 1


def test_one_file_and_its_size(folder: Path) -> None:
    source = find_source("s", SourceSpec(path=str(folder / "b.txt")))
    assert (source.files, source.size) == (((folder / "b.txt", 1),), 1)


def test_a_relative_path_is_found_from_where_one_stands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "a")
    assert _names(folder, "../*.txt".replace("*", "b")) == ["a/../b.txt"]


def _refused(spec: SourceSpec) -> str:
    with pytest.raises(UserError) as caught:
        find_source("de", spec)
    return str(caught.value)


def test_a_missing_path(tmp_path: Path) -> None:
    message = _refused(SourceSpec(path=str(tmp_path / "nowhere")))
    assert message == f"data.sources.de: {tmp_path}/nowhere does not exist"


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "holds no files; what can be read ends in .txt, .jsonl" in _refused(SourceSpec(path=str(tmp_path)))


def test_an_unknown_ending(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    message = _refused(SourceSpec(path=str(tmp_path / "a.csv")))
    assert "a.csv holds files ending in .csv; what can be read ends in .txt, .jsonl, .jsonl.zst, .parquet" in message


def test_an_impossible_pattern(tmp_path: Path) -> None:
    assert "is no pattern for files" in _refused(SourceSpec(path=f"{tmp_path}/**x"))


def test_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone")
    assert f"cannot read {tmp_path}/a.txt: No such file" in _refused(SourceSpec(path=str(tmp_path)))


def test_a_token_pair_with_a_part_missing(tmp_path: Path) -> None:
    (tmp_path / "corpus.bin").touch()
    message = _refused(SourceSpec(kind="tokens", path=str(tmp_path / "corpus")))
    assert f"{tmp_path}/corpus.idx is missing" in message
    assert "corpus.bin and" in message


def test_every_source_without_files_is_named_at_once(folder: Path) -> None:
    there = SourceSpec(path=str(folder))
    missing = SourceSpec(path=str(folder / "nowhere"))
    with pytest.raises(UserError) as error:
        find_sources({"de": missing, "fr": there, "xx": missing})
    assert "data.sources.de: " in str(error.value) and "data.sources.xx: " in str(error.value)
    assert "data.sources.fr" not in str(error.value)
