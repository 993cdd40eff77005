"""Manual pages as documents, and what to do on a machine that has none."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from aiftrain.data.sources import documents, find_source
from aiftrain.errors import UserError
from aiftrain.run.corpus import SourceSpec
from tests.data.corpora import whole

PAGE = ".TH LS 1\n.SH BEZEICHNUNG\nls \\- Verzeichnisse auff\\(:uhren\n"


def _page(root: Path, name: str, content: bytes) -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return file


def _spec(root: Path, language: str = "de") -> SourceSpec:
    return SourceSpec(kind="man-pages", language=language, path=str(root))


def test_pages_packed_or_plain_without_their_aliases(tmp_path: Path) -> None:
    first = _page(tmp_path, "de/man1/ls.1.gz", PAGE.encode())
    second = _page(tmp_path, "de/man3/printf.3posix", PAGE.encode())
    _page(tmp_path, "fr/man1/ls.1.gz", PAGE.encode())
    (tmp_path / "de/man1/dir.1.gz").symlink_to(first)
    source = find_source("de", _spec(tmp_path))
    assert [file for file, _ in source.files] == [first, second]
    read = [text for file, _ in source.files for text in documents(whole(file), source.spec)]
    assert read == ["BEZEICHNUNG\n\nls - Verzeichnisse aufführen"] * 2


@pytest.mark.parametrize("content", [b".so man1/ls.1\n", b".Dd May 1\n.Dt LS 1\n.Sh NAME\n", b'.\\" nothing\n'])
def test_references_and_pages_in_mdoc_are_left_out(tmp_path: Path, content: bytes) -> None:
    page = _page(tmp_path, "de/man1/dir.1", content)
    assert list(documents(whole(page), _spec(tmp_path))) == [None]


def test_a_page_in_an_old_encoding_is_broken_text(tmp_path: Path) -> None:
    page = _page(tmp_path, "de/man1/alt.1.gz", "Größe".encode("latin-1"))
    with pytest.raises(UserError, match=r"alt.1.gz: byte 2 \(0xf6\) is not UTF-8"):
        list(documents(whole(page), _spec(tmp_path)))


def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    page = _page(tmp_path, "de/man1/ls.1.gz", PAGE.encode())
    page.write_bytes(page.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"ls.1.gz is damaged or no gzip file"):
        list(documents(whole(page), _spec(tmp_path)))


@pytest.mark.parametrize(("language", "package"), [("de", "manpages-de"), ("pt_BR", "manpages-pt-br")])
def test_missing_pages_name_the_package_and_another_recipe(tmp_path: Path, language: str, package: str) -> None:
    with pytest.raises(UserError) as caught:
        find_source("x", _spec(tmp_path, language))
    assert str(caught.value).startswith(f"data.sources.x: no manual pages in '{language}' below {tmp_path}/{language}")
    assert f"`apt-get install {package}`" in str(caught.value)
    assert "recipe=smoke" in str(caught.value)


def test_a_language_without_a_package_names_those_that_have_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="languages with a package: cs, da, de, el"):
        find_source("x", _spec(tmp_path, "tlh"))
