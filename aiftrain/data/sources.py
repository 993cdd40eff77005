"""From a source of a spec to its files, in an order that is the same on every machine, and to their documents."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiftrain.data import man_pages, python_library
from aiftrain.data.files import files_below, reading
from aiftrain.data.indexed import bin_file, index_file
from aiftrain.data.spans import Span, Unit, make_units
from aiftrain.data.text_files import ENDINGS, ending_of, next_cut, text_documents
from aiftrain.errors import UserError
from aiftrain.run.corpus import SourceKind, SourceSpec

_READERS: dict[SourceKind, Callable[[Span, SourceSpec], Iterator[str | None]]] = {
    "text": text_documents,
    "python-docs": python_library.docs_documents,
    "python-source": python_library.source_documents,
    "man-pages": man_pages.page_documents,
}


@dataclass(frozen=True)
class Source:
    """A source of the spec and the files it stands for, with their sizes in bytes.

    `left_out` counts the files of a folder whose endings are none of ours.
    """

    name: str
    spec: SourceSpec
    files: tuple[tuple[Path, int], ...]
    left_out: int = 0

    @property
    def size(self) -> int:
        return sum(size for _, size in self.files)

    def units(self) -> list[Unit]:
        """The work, cut into spans that can be read independently of each other."""
        return make_units(self.files, self._next_cut)

    def _next_cut(self, file: Path, position: int) -> int:
        if self.spec.kind == "text":
            return next_cut(file, position, self.spec)
        return file.stat().st_size


def find_sources(specs: Mapping[str, SourceSpec]) -> list[Source]:
    """The sources of a mixture. UserError that tells of every one whose files are not there, not of the first."""
    found, errors = [], []
    for name, spec in specs.items():
        try:
            found.append(find_source(name, spec))
        except UserError as error:
            errors.append(str(error))
    if errors:
        raise UserError("\n".join(errors))
    return found


def find_source(name: str, spec: SourceSpec) -> Source:
    """The files of a source. Raises UserError where there is nothing to read."""
    try:
        files, left_out = _find(spec)
    except UserError as error:
        raise UserError(f"data.sources.{name}: {error}") from error
    root = os.path.commonpath([file.parent for file in files])
    ordered = files if spec.kind == "tokens" else sorted(files, key=lambda file: file.relative_to(root).as_posix())
    return Source(name, spec, tuple((file, _size(file)) for file in ordered), left_out)


def documents(span: Span, spec: SourceSpec) -> Iterator[str | None]:
    """The documents of a span, None for each that is left out. UserError where it cannot be read."""
    return _READERS[spec.kind](span, spec)


def _find(spec: SourceSpec) -> tuple[list[Path], int]:
    match spec.kind:
        case "text":
            return _text_files(Path(spec.path or ""))
        case "tokens":
            return _token_files(Path(spec.path or "")), 0
        case "man-pages":
            return man_pages.find_pages(spec), 0
        case _:
            return python_library.find_modules(spec), 0


def _token_files(prefix: Path) -> list[Path]:
    files = [bin_file(prefix), index_file(prefix)]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file} is missing; a source of kind tokens is a pair {prefix}.bin and {prefix}.idx")
    return [file.absolute() for file in files]


def _text_files(path: Path) -> tuple[list[Path], int]:
    named = [path] if path.exists() else _matches(path)
    if not named:
        raise UserError(f"{path.absolute()} does not exist")
    found = {file.absolute() for entry in named for file in files_below(entry)}
    readable = [file for file in found if ending_of(file)]
    if not readable:
        there = sorted({file.suffix or file.name for file in found})
        what = f"files ending in {', '.join(there)}" if there else "no files"
        raise UserError(f"{path.absolute()} holds {what}; what can be read ends in {', '.join(ENDINGS)}")
    return readable, len(found) - len(readable)


def _matches(pattern: Path) -> list[Path]:
    anchor = Path(pattern.anchor)
    try:
        return list(anchor.glob(str(pattern.relative_to(anchor))))
    except ValueError as error:
        raise UserError(f"{pattern} is no pattern for files: {error}") from error


def _size(file: Path) -> int:
    with reading(file):
        return file.stat().st_size
