"""What a run is billed: the site's own units, its share of the grant, and the access modes that it fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from aiftrain.plan.calendar import Calendar
from aiftrain.plan.groups import Groups
from aiftrain.run.access import AccessSpec
from aiftrain.run.base import Strict
from aiftrain.run.spec import RunSpec


class Bill(Strict):
    """`units` of the site's `unit`; None where the site's rule is not known. `gpu_hours` are None on CPUs.

    `share` is of what was granted or, where that is not said, of the most that the chosen access mode gives a
    project here. `modes` are the shipped access modes whose size and duration the run fits, `larger_modes` those of
    which it would take less than a project must ask for.
    """

    unit: str | None
    units: float | None
    gpu_hours: float | None
    node_hours: float
    access: str
    granted: float | None
    share: float | None
    fits_duration: bool | None
    modes: tuple[str, ...]
    larger_modes: tuple[str, ...]
    assumptions: tuple[str, ...]
    unknowns: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Need:
    """What the run asks of an allocation at `factory`."""

    factory: str
    days: float
    node_hours: float
    gpu_hours: float | None

    def hours(self, mode: AccessSpec) -> float | None:
        """The run's hours in the mode's unit."""
        return {"GPU-hour": self.gpu_hours, "node-hour": self.node_hours, None: None}[mode.unit]

    def suits(self, mode: AccessSpec) -> bool:
        """Whether the mode is offered here, lasts as long as the run, and gives a project as much."""
        hours, size = self.hours(mode), mode.size_at(self.factory)
        if hours is None or size is None or (mode.days is not None and self.days > mode.days):
            return False
        return size.maximum is None or hours <= size.maximum

    def reaches(self, mode: AccessSpec) -> bool:
        """Whether the run takes as much as a project must ask for."""
        hours, size = self.hours(mode), mode.size_at(self.factory)
        return hours is not None and size is not None and hours >= (size.minimum or 0)


def bill(spec: RunSpec, calendar: Calendar, modes: Iterable[AccessSpec]) -> Bill:
    """The bill of a run for whole nodes over the whole calendar, judged against `modes`."""
    billing, access = spec.factory.billing, spec.access
    gpus = gpu_hours_per_node_hour(spec)
    hours = calendar.node_hours
    need = _Need(spec.factory.name, calendar.days, hours, gpus * hours if gpus else None)
    units = billing.per_node_hour * hours if billing else None
    share = _share(access, need, units)
    suitable = [mode for mode in modes if need.suits(mode)]
    return Bill(
        unit=billing.unit if billing else None,
        units=units,
        gpu_hours=need.gpu_hours,
        node_hours=need.node_hours,
        access=access.title or access.name,
        granted=access.granted,
        share=share,
        fits_duration=None if access.days is None else need.days <= access.days,
        modes=tuple(mode.title for mode in suitable if need.reaches(mode)),
        larger_modes=tuple(mode.title for mode in suitable if not need.reaches(mode)),
        assumptions=tuple(_assumptions(spec)),
        unknowns=() if billing else ("factory.billing",),
        warnings=tuple(_warnings(access, need, share)),
    )


@cache
def shipped_modes() -> tuple[AccessSpec, ...]:
    """The access modes of conf/access: those in GPU-hours first, by name."""
    groups = Groups()
    modes = [AccessSpec.model_validate(groups.read("access", name)) for name in groups.choices("access")]
    return tuple(sorted((mode for mode in modes if mode.unit), key=lambda mode: (mode.unit or "", mode.name)))


def gpu_hours_per_node_hour(spec: RunSpec) -> float | None:
    """GPU-hours in an hour of one node: as the grant says, as the site bills, or one a device. None on CPUs."""
    if spec.access.gpu_hours_per_node_hour:
        return spec.access.gpu_hours_per_node_hour
    if spec.hardware.is_cpu:
        return None
    billing = spec.factory.billing
    return billing.per_node_hour if billing and billing.unit == "GPU-hour" else float(spec.hardware.devices_per_node)


def _share(access: AccessSpec, need: _Need, units: float | None) -> float | None:
    if access.granted is not None:
        return None if units is None else units / access.granted
    size, hours = access.size_at(need.factory), need.hours(access)
    if size is None or size.maximum is None or hours is None:
        return None
    return hours / size.maximum


def _assumptions(spec: RunSpec) -> Iterator[str]:
    if spec.factory.billing:
        yield "whole nodes are billed, from the start of each job to its end"
    gpus = gpu_hours_per_node_hour(spec)
    if gpus and not spec.access.gpu_hours_per_node_hour:
        yield f"an hour of a node counts as {gpus:g} GPU-hours of a grant: else say access.gpu_hours_per_node_hour=..."
    yield "access modes by size and duration alone: who may apply, and for which machines, is for the call to say"


def _warnings(access: AccessSpec, need: _Need, share: float | None) -> Iterator[str]:
    title = access.title or access.name
    if access.size_at(need.factory) is None:
        yield f"{title} is not known to be offered on {need.factory}: there are {', '.join(access.sites)}"
    if share is not None and share > 1:
        whole = f"the {access.granted:,.0f} granted" if access.granted is not None else f"the most that {title} gives"
        yield f"the run takes {share:.0%} of {whole}"
    if access.days is not None and need.days > access.days:
        yield f"the run takes {need.days:,.0f} days, and {title} lasts {access.days:,.0f}"
