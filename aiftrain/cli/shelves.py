"""`factories`, `hardware`, `storage`, `recipes`: what is shipped, and with `show NAME` where each figure comes from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from aiftrain.cli import output, profile, storage_check
from aiftrain.errors import EXIT_OK, UserError
from aiftrain.plan.groups import Groups, folder_of
from aiftrain.run.base import Strict
from aiftrain.run.machine import Factory, Hardware
from aiftrain.run.storage import ServiceSpec

_GROUPS = {"factories": "factory", "hardware": "hardware", "storage": "storage", "recipes": "recipe"}
_MODELS: dict[str, type[Strict]] = {"factory": Factory, "hardware": Hardware, "storage": ServiceSpec}
_COLUMNS = {
    "factory": ("name", "status", "hardware", "nodes_total", "title"),
    "hardware": ("name", "kind", "devices_per_node", "device_memory_gib", "peak_bf16_tflops", "title"),
    "storage": ("name", "location", "operator_seat", "owner_seat", "title"),
}
_HEADINGS = {
    "nodes_total": "nodes",
    "devices_per_node": "devices",
    "device_memory_gib": "GiB each",
    "peak_bf16_tflops": "TFLOP/s each",
    "location": "data in",
    "operator_seat": "operator in",
    "owner_seat": "owner in",
    "title": "what it is",
}
_HELP = "everything about one of them, with its sources"
_CHECK = "; check ADDRESS: whether a bucket or a folder keeps what it is given, tried with your keys"
_NUMBERS = {"nodes_total", "devices_per_node", "device_memory_gib", "peak_bf16_tflops"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    check = _CHECK if parser.get_default("verb") == "storage" else ""
    parser.add_argument("words", nargs="*", metavar="show NAME", help=_HELP + check)


def run(options: argparse.Namespace) -> int:
    group = _GROUPS[options.verb]
    words = [word for word in options.words if "=" not in word]
    groups = Groups(tuple(_own_folders([word for word in options.words if "=" in word])))
    if not words:
        _list(group, groups, as_json=options.json)
    elif len(words) == 2 and words[0] == "show":
        _show(group, words[1], groups, as_json=options.json)
    elif group == "storage" and len(words) == 2 and words[0] == "check":
        return storage_check.run(words[1], groups, as_json=options.json)
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
    entries = {name: _read(group, name, groups) for name in groups.choices(group)}
    if as_json:
        output.print_json(entries)
        return
    if group == "recipe":
        rows = [(name, groups.summary(group, name)) for name in entries]
        output.show(output.table(("recipe", "what it is"), rows), output.console())
        return
    if group == "factory":
        entries = {
            name: entry | {"hardware": groups.default(group, name, "hardware")} for name, entry in entries.items()
        }
    columns = _COLUMNS[group]
    rows_of = [[_cell(entry, column) for column in columns] for entry in entries.values()]
    header = [_HEADINGS.get(column, column) for column in columns]
    numbers = [place for place, column in enumerate(columns) if column in _NUMBERS]
    output.show(output.table(header, rows_of, numbers=numbers), output.console())


def _show(group: str, name: str, groups: Groups, *, as_json: bool) -> None:
    entry = _read(group, name, groups)
    if as_json:
        output.print_json(entry)
        return
    console = output.console()
    summary = groups.summary(group, name)
    output.headline(f"{name}: {entry.get('title', summary)}", console)
    if "provenance" in entry:
        profile.show(entry, groups.opening(group, name), _MODELS[group], console)
    else:
        output.show(output.facts((key, profile.word(value)) for key, value in profile.flat(entry)), console)


def _read(group: str, name: str, groups: Groups) -> dict[str, Any]:
    """A file's content; of a storage service what is known of it, without how a run would use it."""
    entry = groups.read(group, name)
    if group == "storage" and entry.get("service"):
        return dict(entry["service"])
    return entry | {"title": groups.summary(group, name)} if group == "storage" else entry


def _cell(entry: dict[str, Any], column: str) -> str:
    """A figure that nobody documents is unknown; a word that is not there has no meaning there."""
    return profile.word(entry.get(column)) if column in _NUMBERS else str(entry.get(column) or "")
