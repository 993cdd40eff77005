"""Storage for checkpoints: bytes and files at the worst moment, against each area's quota, purge and billing."""

from __future__ import annotations

import re
from collections.abc import Iterable

from aiftrain.plan.calendar import Calendar
from aiftrain.plan.estimate import checkpoints_kept
from aiftrain.run.base import Strict
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.machine import StorageArea
from aiftrain.run.spec import RunSpec

TB = 1e12
_BESIDES = 4  # files of a checkpoint that are no rank's: manifest, run.json, data.json, tokenizer
_VARIABLE = re.compile(r"[<{$%]")  # where a documented path stops to be literal: /scratch/project_<id>


class AreaUse(Strict):
    """Whether the checkpoints fit one storage area; None where its limit is not known.

    `billed` are the site's units of storage for the whole run, at most: all checkpoints that are ever kept, from
    the first hour on.
    """

    name: str
    path: str
    fits_bytes: bool | None
    fits_files: bool | None
    purged: bool  # files may be deleted before the run is over
    billed: float | None

    @property
    def fits(self) -> bool | None:
        """False where a limit is too low, True where all are known and high enough, else None."""
        limits = (self.fits_bytes, self.fits_files)
        return False if False in limits else None if None in limits else True


class StorageUse(Strict):
    """Checkpoints at the worst moment of a run. `destination` is the area that storage.path lies in."""

    checkpoint_bytes: int
    kept: int
    kept_bytes: int
    files: int
    destination: str | None
    areas: tuple[AreaUse, ...]
    warnings: tuple[str, ...]


def storage(spec: RunSpec, layout: ParallelLayout, calendar: Calendar, checkpoint_bytes: int) -> StorageUse:
    """What the checkpoints of a run take: of each rank a file, and a few more."""
    kept = checkpoints_kept(spec)
    kept_bytes, files = kept * checkpoint_bytes, kept * (layout.world_size + _BESIDES)
    areas = spec.factory.storage_areas
    uses = tuple(_use(name, area, kept_bytes, files, calendar.days) for name, area in areas.items())
    destination = destination_of(spec)
    return StorageUse(
        checkpoint_bytes=checkpoint_bytes,
        kept=kept,
        kept_bytes=kept_bytes,
        files=files,
        destination=destination,
        areas=uses,
        warnings=tuple(_warnings(uses, destination, areas, calendar.days)),
    )


def destination_of(spec: RunSpec) -> str | None:
    """The name of the storage area whose path storage.path begins with, the longest where there are several."""
    path = spec.storage.path
    starts = {name: _VARIABLE.split(area.path)[0] for name, area in spec.factory.storage_areas.items()}
    holding = [name for name, start in starts.items() if path and start.strip("/") and path.startswith(start)]
    return max(holding, key=lambda name: len(starts[name]), default=None)


def write_rate(spec: RunSpec) -> float | None:
    """GB/s at which checkpoints are written: as the user says, or as documented of the area they go to.

    Without storage.path they lie in the run folder, and that is taken to be on the site's scratch.
    """
    if spec.plan.write_gb_per_s is not None:
        return spec.plan.write_gb_per_s
    area = spec.factory.storage_areas.get(destination_of(spec) or "scratch")
    return area.write_gb_per_s if area else None


def _use(name: str, area: StorageArea, octets: int, files: int, days: float) -> AreaUse:
    factor = area.billing_factor
    return AreaUse(
        name=name,
        path=area.path,
        fits_bytes=None if area.quota_gb is None else octets <= area.quota_gb * 1e9,
        fits_files=None if area.max_files is None else files <= area.max_files,
        purged=area.purge_days is not None and area.purge_days < days,
        billed=None if factor is None else factor * octets / TB * days * 24,
    )


def _warnings(
    uses: tuple[AreaUse, ...], destination: str | None, areas: dict[str, StorageArea], days: float
) -> Iterable[str]:
    """What is wrong with the area that was chosen, or with all of them."""
    if uses and all(use.fits is False for use in uses):
        yield "no storage area takes the checkpoints at its default quota: ask the site for more before the run"
    for use in uses:
        chosen = use.name == destination
        if chosen and use.fits is False:
            yield f"the checkpoints do not fit {use.name} at its default quota: ask the site for more before the run"
        if use.purged and (chosen or (destination is None and _may_be_meant(use, areas[use.name]))):
            yield (
                f"{use.name} may delete files after {areas[use.name].purge_days} days, and the run takes {days:,.0f}: "
                "copy the checkpoints that you keep, and the prepared data, somewhere else"
            )


def _may_be_meant(use: AreaUse, area: StorageArea) -> bool:
    """Whether somebody might save there: not in an area that is too small, or wiped at the end of each job."""
    return use.fits is not False and area.purge_days != 0
