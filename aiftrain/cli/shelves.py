"""`factories`, `hardware` and `recipes`: what is shipped, and with `show NAME` where each figure comes from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from aiftrain.cli import output
from aiftrain.errors import EXIT_OK, UserError
from aiftrain.plan.groups import Groups, folder_of

_GROUPS = {"factories": "factory", "hardware": "hardware", "recipes": "recipe"}
_COLUMNS = {
    "factory": ("name", "status", "scheduler", "partition", "title"),
    "hardware": ("name", "kind", "devices_per_node", "device_memory_gib", "peak_bf16_tflops", "title"),
}
_HEADINGS = {
    "devices_per_node": "devices",
    "device_memory_gib": "GiB each",
    "peak_bf16_tflops": "TFLOP/s each",
    "title": "what it is",
}
_NUMBERS = {"devices_per_node", "device_memory_gib", "peak_bf16_tflops"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="show NAME", help="everything about one of them, with its sources")


def run(options: argparse.Namespace) -> int:
    group = _GROUPS[options.verb]
    words = [word for word in options.words if "=" not in word]
    groups = Groups(tuple(_own_folders([word for word in options.words if "=" in word])))
    if not words:
        _list(group, groups, as_json=options.json)
    elif len(words) == 2 and words[0] == "show":
        _show(group, words[1], groups, as_json=options.json)
    else:
        raise UserError(f"{options.verb} takes `show NAME` or nothing; there are: {', '.join(groups.choices(group))}")
    return EXIT_OK


def _own_folders(overrides: list[str]) -> Iterator[Any]:
    for override in overrides:
        key, _, value = override.partition("=")
        if key != "hydra.searchpath":
            raise UserError(f"{override} does not belong here; hydra.searchpath=[FOLDER] adds a folder of yours")
        yield from (folder_of(path.strip()) for path in value.strip("[]").split(","))


def _list(group: str, groups: Groups, *, as_json: bool) -> None:
    entries = {name: groups.read(group, name) for name in groups.choices(group)}
    if as_json:
        output.print_json(entries)
        return
    if group == "recipe":
        rows = [(name, groups.summary(group, name)) for name in entries]
        output.show(output.table(("recipe", "what it is"), rows), output.console())
        return
    columns = _COLUMNS[group]
    rows_of = [[_cell(entry, column) for column in columns] for entry in entries.values()]
    header = [_HEADINGS.get(column, column) for column in columns]
    numbers = [place for place, column in enumerate(columns) if column in _NUMBERS]
    output.show(output.table(header, rows_of, numbers=numbers), output.console())


def _show(group: str, name: str, groups: Groups, *, as_json: bool) -> None:
    entry = groups.read(group, name)
    if as_json:
        output.print_json(entry)
        return
    console = output.console()
    summary = groups.summary(group, name)
    output.headline(f"{name}: {entry.get('title', summary)}", console)
    sources = entry.pop("provenance", {})
    figures = dict(_flat(entry))
    output.show(output.facts((key, _word(value)) for key, value in figures.items()), console)
    if sources:
        console.print()
        output.headline("where it comes from", console)
        output.show(output.facts((key, _origin(source)) for key, source in sources.items()), console)


def _cell(entry: dict[str, Any], column: str) -> str:
    """A figure that nobody documents is unknown; a word that is not there has no meaning there."""
    return _word(entry.get(column)) if column in _NUMBERS else str(entry.get(column) or "")


def _origin(source: dict[str, str]) -> str:
    note = f"; {source['note']}" if source.get("note") else ""
    return f"{source['source']} ({source['confidence']}, read {source['date']}){note}"


def _flat(entry: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in entry.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _word(value: object) -> str:
    """A value for people: nobody's null is `unknown`."""
    if value is None:
        return "unknown"
    if isinstance(value, list | dict):
        return ", ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
