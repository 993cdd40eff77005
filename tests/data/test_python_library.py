"""Python's own documentation and sources as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiftrain.data.sources import documents, find_source
from aiftrain.errors import UserError
from aiftrain.run.corpus import SourceSpec
from tests.data.corpora import whole

MODULE = '''"""About shapes."""

class Circle:
    """A round
    shape."""

    def area(self, scale: float = 1.0) -> float:
        """How large it is."""

    def _private(self):
        """Not shown."""

async def draw(*shapes):
    """Paint them."""
'''


def _library(root: Path) -> Path:
    for name, content in (
        ("shapes.py", MODULE),
        ("_private.py", MODULE),
        ("pack/__init__.py", '"""A package."""'),
        ("pack/plain.py", "x = 1\n"),
        ("pack/tests/test_shapes.py", MODULE),
        ("site-packages/other.py", MODULE),
        ("pydoc_data/topics.py", "topics = {'b': 'second\\n', 'a': 'first'}\n"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def _read(spec: SourceSpec) -> list[str]:
    source = find_source("py", spec)
    return [text for file, _ in source.files for text in documents(whole(file), source.spec) if text]


def test_documentation_of_public_modules_and_every_topic(tmp_path: Path) -> None:
    package, first, second, shapes = _read(SourceSpec(kind="python-docs", path=str(_library(tmp_path))))
    assert (package, first, second) == ("module pack\n\nA package.", "first", "second")
    assert shapes.split("\n\n") == [
        "module shapes",
        "About shapes.",
        "class Circle",
        "A round\nshape.",
        "Circle.area(self, scale: float=1.0)",
        "How large it is.",
        "draw(*shapes)",
        "Paint them.",
    ]


def test_sources_without_tests_and_installed_packages(tmp_path: Path) -> None:
    read = _read(SourceSpec(kind="python-source", path=str(_library(tmp_path))))
    assert read.count(MODULE) == 2  # shapes.py and _private.py
    assert len(read) == 5


def test_this_python_has_both() -> None:
    docs = find_source("docs", SourceSpec(kind="python-docs"))
    sources = find_source("source", SourceSpec(kind="python-source"))
    names = {file.name for file, _ in docs.files}
    assert {"argparse.py", "topics.py", "pathlib.py"} <= names
    assert sources.size > 5_000_000
    parts = {part for file, _ in sources.files for part in file.parts}
    assert not parts & {"test", "tests", "site-packages", "idle_test"}


def test_a_file_that_is_no_python_is_named(tmp_path: Path) -> None:
    (tmp_path / "shapes.py").write_text("def (:")
    with pytest.raises(UserError, match=r"shapes.py is no Python source: invalid syntax"):
        _read(SourceSpec(kind="python-docs", path=str(tmp_path)))


def test_a_folder_without_modules_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.sources.py: no Python modules below"):
        find_source("py", SourceSpec(kind="python-source", path=str(tmp_path)))
