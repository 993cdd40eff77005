"""`checkpoints keep PLACE --step N [--as NAME]`: a milestone, which neither retention nor prune removes."""

from __future__ import annotations

import argparse

from aiftrain.checkpoint.milestones import (
    read_milestones,
    read_milestones_away,
    write_milestones,
    write_milestones_away,
)
from aiftrain.checkpoint.places import Away, Home
from aiftrain.cli import output
from aiftrain.cli.checkpoints.places import complete_step, one_run_at
from aiftrain.errors import EXIT_OK, UserError


def run(options: argparse.Namespace) -> int:
    place = one_run_at(options)
    milestones = milestones_of(place)
    name = getattr(options, "as")
    if options.drop:
        _drop(milestones, options.step, place.address)
    else:
        step = complete_step(place, options.step)
        milestones[step] = name or milestones.get(step) or "milestone"
    _write(place, milestones)
    if options.json:
        output.print_json({"folder": place.address, "milestones": milestones})
    else:
        for step, called in sorted(milestones.items()):
            output.console().print(f"step {step:,} stays: {called}", markup=False)
    return EXIT_OK


def milestones_of(place: Home | Away) -> dict[int, str]:
    """Steps, and what they are called."""
    if isinstance(place, Home):
        return read_milestones(place.catalog.folder)
    return read_milestones_away(place.archive.store, place.lineage)


def _write(place: Home | Away, milestones: dict[int, str]) -> None:
    if isinstance(place, Home):
        write_milestones(place.catalog.folder, milestones)
    else:
        write_milestones_away(place.archive.store, place.lineage, milestones)


def _drop(milestones: dict[int, str], step: int | None, where: str) -> None:
    if step is None:
        raise UserError("keep --drop needs --step N")
    if step not in milestones:
        there = ", ".join(map(str, sorted(milestones))) or "none"
        raise UserError(f"--step {step} is no milestone of {where}; there are: {there}")
    del milestones[step]
