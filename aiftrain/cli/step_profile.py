"""`profile RUN`: where the time of the steps went that a run with profile=true recorded."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from statistics import median

from aiftrain.cli import output
from aiftrain.errors import EXIT_OK
from aiftrain.run.folder import RunFolder
from aiftrain.run.profile import MEANINGS, Part, Profile, read_profile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder")


def run(options: argparse.Namespace) -> int:
    folder = RunFolder(options.run)
    profile = read_profile(folder)
    if options.json:
        output.print_json(profile.model_dump(mode="json"))
        return EXIT_OK
    console = output.console()
    ranks = output.plural(len(profile.ranks), "rank")
    output.headline(f"steps {profile.first} to {profile.last}, {ranks}, milliseconds a step", console)
    header = ("", "median rank", "share", "least", "most", "")
    output.show(output.table(header, _rows(profile), numbers=(1, 2, 3, 4)), console)
    console.print()
    output.show(output.facts(_notes(folder, profile)), console)
    return EXIT_OK


def _rows(profile: Profile) -> Iterator[tuple[str, ...]]:
    wall = median(rank.wall for rank in profile.ranks)
    for part, meaning in MEANINGS.items():
        seconds = _of_ranks(profile, part)
        usual = median(seconds)
        figures = (_per_step(value, profile) for value in (min(seconds), max(seconds)))
        yield part, _per_step(usual, profile), f"{usual / wall:.1%}", *figures, meaning
    walls = [rank.wall for rank in profile.ranks]
    figures = (_per_step(value, profile) for value in (min(walls), max(walls)))
    yield "all", _per_step(wall, profile), "", *figures, "of each rank the parts add up to this"


def _of_ranks(profile: Profile, part: Part) -> list[float]:
    return [rank.parts.get(part, 0.0) for rank in profile.ranks]


def _notes(folder: RunFolder, profile: Profile) -> Iterator[tuple[str, str]]:
    hidden = median(rank.hidden_communication for rank in profile.ranks)
    yield "hidden", f"{_per_step(hidden, profile)} ms a step of communication go on while something is computed"
    if len(profile.ranks) > 1:
        last = min(profile.ranks, key=lambda rank: rank.parts.get("waiting", 0.0))
        if profile.compared:
            yield "waiting", f"least on rank {last.rank}"
        else:
            yield "waiting", "is part of communication: the messages of these ranks do not match one by one"
    traces = ", ".join(str(folder.profile / name) for name in profile.traces[:2])
    more = f" and {len(profile.traces) - 2} more" if len(profile.traces) > 2 else ""
    yield "traces", f"{traces}{more}, for ui.perfetto.dev or chrome://tracing"


def _per_step(seconds: float, profile: Profile) -> str:
    return f"{seconds / profile.steps * 1e3:,.1f}"
