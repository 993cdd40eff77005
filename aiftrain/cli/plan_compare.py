"""`plan --compare`: one run at several factories as one table: time, bill, energy, what fits where."""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from aiftrain.cli import output
from aiftrain.cli.planning import amount, short, span
from aiftrain.errors import EXIT_OK

if TYPE_CHECKING:
    from rich.console import Console

    from aiftrain.plan.compare import Entry
    from aiftrain.plan.energy import Energy
    from aiftrain.plan.nodes import Option

_HEADER = ("site", "nodes", "hardware", "days", "range", "bill", "share", "MWh", "t CO2e")
_NUMBERS = (1, 3, 6, 7, 8)


def run(options: argparse.Namespace) -> int:
    """Compare, print, and draw where that was asked for."""
    from aiftrain.plan.compare import compare

    names = [name.strip() for name in options.compare.split(",") if name.strip()]
    entries = compare(options.overrides, names, options.deadline)
    if options.json:
        output.print_json({"sites": [_document(entry) for entry in entries]})
    else:
        _show(entries, options, output.console())
    if options.picture:
        from aiftrain.cli.plan_pictures import comparison

        file = comparison(entries, _title(entries, options.deadline), options.deadline, options.picture)
        output.console(as_json=options.json).print(f"\npicture: {file}", markup=False)
    return EXIT_OK


def _title(entries: Sequence[Entry], deadline: float | None) -> str:
    recipe, asked = entries[0].recipe, output.plural(entries[0].nodes_asked, "node")
    if deadline is not None:
        return f"{recipe}: the fewest nodes that take {deadline:g} days or less"
    return f"{recipe}: {asked}, or as near as a site comes"


def _document(entry: Entry) -> dict[str, Any]:
    strategy = entry.option.candidate.strategy if entry.option else None
    return {**entry.model_dump(mode="json"), "hardware": entry.hardware.name, "strategy": strategy}


def _show(entries: Sequence[Entry], options: argparse.Namespace, console: Console) -> None:
    output.headline(_title(entries, options.deadline), console)
    ordered = sorted(entries, key=_place)
    rows = [_row(entry, entry.priced) for entry in ordered if entry.priced is not None]
    if rows:
        output.show(output.table(_HEADER, rows, numbers=_NUMBERS), console)
        console.print()
    output.show(output.facts([*_mode_rows(ordered), *_why_rows(ordered), *_notes(ordered)]), console)


def _place(entry: Entry) -> float:
    return entry.priced.days if entry.priced is not None else math.inf


def _row(entry: Entry, one: Option) -> tuple[str, ...]:
    bill = one.bill
    return (
        f"{entry.name}{_marks(entry, one)}",
        f"{one.nodes:,}",
        f"{entry.hardware.devices_per_node} x {entry.hardware.name}",
        amount(one.days),
        span(one.quickest, one.slowest),
        f"{short(one.units)} {one.unit}s" if bill.unit else "unknown",
        "" if bill.share is None else f"{bill.share:.0%}",
        *_energy(one.energy),
    )


def _energy(energy: Energy) -> tuple[str, str]:
    """MWh and tonnes of the devices alone, which are known of most sites and so compare."""
    if energy.device is None:
        return "unknown", "unknown"
    mwh = energy.device.expected
    return amount(mwh), amount(mwh * energy.grid.g_per_kwh / 1e3) if energy.grid else "unknown"


def _marks(entry: Entry, one: Option) -> str:
    guessed = one.candidate.rate is not None and not one.candidate.rate.well_founded
    return ("*" if entry.announced else "") + ("~" if guessed else "")


def _mode_rows(entries: Sequence[Entry]) -> Iterator[tuple[str, str]]:
    """Each access mode with the sites where the run fits it."""
    sites: dict[str, list[str]] = {}
    for entry in entries:
        for mode in entry.priced.bill.modes if entry.priced is not None else ():
            sites.setdefault(mode, []).append(entry.name)
    label = "fits"
    for mode, names in sites.items():
        yield label, f"{mode}: {', '.join(names)}"
        label = ""


def _why_rows(entries: Sequence[Entry]) -> Iterator[tuple[str, str]]:
    """What stands against sites, or is unknown of them, with the sites that it holds for."""
    for label, with_price in (("but", True), ("no answer", False)):
        reasons: dict[str, list[str]] = {}
        for entry in entries:
            if entry.why and (entry.priced is not None) == with_price:
                reasons.setdefault(entry.why, []).append(_called(entry))
        labels = itertools.chain([label], itertools.repeat(""))
        yield from ((next(labels), f"{', '.join(names)}: {why}") for why, names in reasons.items())


def _called(entry: Entry) -> str:
    return f"{entry.name}*" if entry.announced else entry.name


def _notes(entries: Sequence[Entry]) -> Iterator[tuple[str, str]]:
    yield "assumed", "each site with the fastest layout that fits there; days without the queue"
    yield "", "MWh and CO2e of the devices alone, so that sites compare; plan factory=NAME tells more"
    fewer = [f"{entry.name} {entry.option.nodes:,}" for entry in entries if _differs(entry) and entry.option]
    if fewer:
        asked = f"not the {entries[0].nodes_asked:,} asked for, which these do not give or share out"
        yield "nodes", f"{asked}: {', '.join(fewer)}"
    if any(entry.announced for entry in entries):
        yield "*", "announced: nothing runs there yet, and its figures may change"
    options = (entry.option for entry in entries)
    if any(one and one.candidate.rate and not one.candidate.rate.well_founded for one in options):
        yield "~", "no published runs on this hardware, or undocumented figures assumed: plan factory=NAME says which"


def _differs(entry: Entry) -> bool:
    return not entry.deadline and entry.option is not None and entry.option.nodes != entry.nodes_asked
