"""From what a person calls a place (a run folder, an archive's folder, s3://SERVICE/BUCKET) to the runs there."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path

from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.places import Away, Home, archives_in, looks_like_one_run
from aiftrain.checkpoint.stores.base import Store
from aiftrain.checkpoint.stores.bucket import open_bucket
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.errors import UserError
from aiftrain.run.egress import Host
from aiftrain.run.folder import RunFolder
from aiftrain.run.residency import archive_hosts
from aiftrain.run.storage import ArchiveSpec


def runs_at(options: argparse.Namespace) -> Sequence[Home | Away]:
    """All runs at `options.place`, or those whose lineage begins with `options.lineage`. UserError where none is."""
    place, digits = options.place, options.lineage or ""
    if is_bucket(place):
        return archives_in(open_place(spec_of(place, options)), digits, options.identity)
    _refuse_url(place)
    folder = Path(place)
    if (folder / "run.json").exists():
        return [_home(RunFolder(folder), digits)]
    _check_is_folder(folder)
    folder = folder.resolve()
    if looks_like_one_run(folder) and not digits:
        return [Away(Archive(FolderStore(folder.parent), folder.name), options.identity)]
    return archives_in(FolderStore(folder), digits, options.identity)


def one_run_at(options: argparse.Namespace) -> Home | Away:
    """The only run there. UserError where there are several, naming them."""
    runs = runs_at(options)
    if len(runs) > 1:
        names = ", ".join(run.lineage for run in runs)
        raise UserError(
            f"{options.place} has several runs: choose one with --lineage DIGITS (its first are enough): {names}"
        )
    return runs[0]


def complete_step(place: Home | Away, step: int | None) -> int:
    """A step that is complete there, by default the newest; nothing is opened. It raises what `Place.find` does."""
    complete = [each.step for each in place.summaries() if each.status == "complete"]
    wanted = complete[-1] if step is None and complete else step
    return wanted if wanted in complete else place.find(step).manifest.step


def spec_of(place: str, options: argparse.Namespace) -> ArchiveSpec:
    """A place as a configuration describes it. No Hydra, and for a folder no file of conf/ is read."""
    if not is_bucket(place):
        _refuse_url(place)
        return ArchiveSpec(address=str(Path(place).resolve()))
    from aiftrain.plan.archives import archive_at
    from aiftrain.plan.groups import Groups

    return archive_at(place, Groups((options.conf,) if options.conf else ()))


def open_place(spec: ArchiveSpec) -> Store:
    """The store that a place is: one that a person named, or an archive of a run."""
    return FolderStore(Path(spec.address)) if spec.is_folder else open_bucket(spec)


def hosts_of(options: argparse.Namespace) -> dict[Host, str]:
    """The services that the person has named, by the rule that lets this process connect to them and to no other."""
    buckets = [place for place in (options.place, options.to) if place and is_bucket(place)]
    return archive_hosts(spec_of(place, options) for place in buckets)


def is_bucket(place: str) -> bool:
    return place.startswith("s3:")


def _refuse_url(place: str) -> None:
    """UserError where it is one of something else than a bucket."""
    if "://" in place:
        raise UserError("a URL is no place; a bucket is s3://SERVICE/BUCKET (`python -m aiftrain storage`)")


def _home(folder: RunFolder, digits: str) -> Home:
    home = Home.of(folder)
    if not home.lineage.startswith(digits):
        raise UserError(f"{folder.path} is the run {home.lineage}, not one that begins with {digits}")
    return home


def _check_is_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    near = [each.name for each in folder.parent.iterdir() if each.is_dir()] if folder.parent.is_dir() else []
    close = difflib.get_close_matches(folder.name, near, n=1)
    advice = f"; did you mean {folder.parent / close[0]}?" if close else ""
    found = f"{folder} is a file" if folder.exists() else f"there is no folder {folder}"
    raise UserError(f"{found}{advice}\n      a place is a run folder, an archive's folder, or s3://SERVICE/BUCKET")
