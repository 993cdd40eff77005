"""One factory or hardware profile for people: each figure and how sure it is; below, the sources by number."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console

from aiftrain.cli import output
from aiftrain.run.base import Provenance, Strict

_ELSEWHERE = {"name", "title", "provenance"}  # stand in the headline and below


def show(entry: Mapping[str, Any], opening: Iterable[str], model: type[Strict], to: Console) -> None:
    """Print a profile as its file reads, its opening comment first; `model` knows what it could state and does not."""
    sources = {name: Provenance.model_validate(source) for name, source in entry["provenance"].items()}
    stated = {key: value for key, value in flat(entry) if value not in (None, [], {})}
    numbers: dict[Provenance, int] = {}
    rows = [(name, _value(figures), _sure(figures, sources, numbers)) for name, figures in _rows(stated).items()]
    for paragraph in _paragraphs(opening):
        hanging = "  " if paragraph.startswith(" ") else ""
        to.print("\n".join(textwrap.wrap(paragraph, to.width, subsequent_indent=hanging)), markup=False)
    to.print()
    output.show(output.table(("figure", "value", "how sure, source"), rows), to)
    to.print()
    output.show(output.facts(_footnotes(numbers, _unstated(stated, model))), to)


def _paragraphs(opening: Iterable[str]) -> list[str]:
    """Lines of a comment, joined, but for those that are indented."""
    paragraphs: list[str] = []
    for line in opening:
        if paragraphs and not line.startswith(" ") and not paragraphs[-1].startswith(" "):
            paragraphs[-1] += f" {line}"
        else:
            paragraphs.append(line)
    return paragraphs


def flat(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values."""
    for key, value in entry.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def word(value: object) -> str:
    """A value for people: nobody's null is `unknown`."""
    if value is None:
        return "unknown"
    if isinstance(value, list | dict):
        return ", ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _rows(stated: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A row for each figure, but one for all of a partition, a quality of service or a storage area."""
    rows: dict[str, dict[str, Any]] = {}
    for key, value in stated.items():
        if key.split(".")[0] in _ELSEWHERE:
            continue
        rows.setdefault(".".join(key.split(".")[:2]), {})[key] = value
    return rows


def _value(figures: Mapping[str, Any]) -> str:
    deep = any(key.count(".") > 1 for key in figures)
    return ", ".join(f"{key.split('.')[-1]} {word(value)}" if deep else word(value) for key, value in figures.items())


def _sure(figures: Iterable[str], sources: Mapping[str, Provenance], numbers: dict[Provenance, int]) -> str:
    """How sure the figures are, with the numbers of their sources; sources not met before get the next ones."""
    found = dict.fromkeys(source for key in figures if (source := _source_of(key, sources)))
    return ", ".join(f"{source.confidence} [{numbers.setdefault(source, len(numbers) + 1)}]" for source in found)


def _source_of(key: str, sources: Mapping[str, Provenance]) -> Provenance | None:
    """The source of a figure: its own, or that of what it is part of."""
    parts = key.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((sources[name] for name in names if name in sources), None)


def _unstated(stated: Mapping[str, Any], model: type[Strict]) -> list[str]:
    known = {key.split(".")[0] for key in stated} | _ELSEWHERE
    return [name for name in model.model_fields if name not in known]


def _footnotes(numbers: Mapping[Provenance, int], unstated: list[str]) -> Iterator[tuple[str, str]]:
    for source, number in numbers.items():
        note = f": {source.note}" if source.note else ""
        yield f"[{number}]", f"{source.source} (read {source.date}){note}"
    if unstated:
        yield "", f"Not known, or not needed here: {', '.join(unstated)}"
