"""What a run costs, as rows for people: `plan` prints them under the layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from aiftrain.cli import output

if TYPE_CHECKING:
    from aiftrain.plan.act import Position, TrainingCompute
    from aiftrain.plan.bill import Bill
    from aiftrain.plan.calendar import Calendar
    from aiftrain.plan.cost import Cost
    from aiftrain.plan.energy import Band, Energy
    from aiftrain.plan.storage import AreaUse, StorageUse

Row = tuple[str, str]

_MARKS = {"above": "above", "near": "near, within 30 % of", "below": "below"}


def rows(cost: Cost) -> Iterator[Row]:
    """Names and what is to be said of each."""
    yield from _calendar_rows(cost.calendar)
    yield from _bill_rows(cost.bill)
    yield from _energy_rows(cost.energy)
    yield from _compute_rows(cost.compute)
    yield from _storage_rows(cost.storage)


def _calendar_rows(calendar: Calendar) -> Iterator[Row]:
    overheads = {
        "evaluation": calendar.evaluation_seconds,
        "checkpoints": calendar.checkpoint_seconds,
        "restarts": calendar.restart_seconds,
    }
    parts = ", ".join(f"{_time(seconds)} {name}" for name, seconds in overheads.items() if seconds)
    yield "time", f"{_time(86400 * calendar.days)} (of which {parts}){_jobs(calendar)}"
    queue = "unknown" if calendar.queue_days is None else f"{_time(86400 * calendar.queue_days)} on top"
    failures = f"; {calendar.failures:,.1f} failures to be expected" if calendar.failures >= 0.05 else ""
    yield "", f"waiting in the queue: {queue}{failures}"
    if calendar.best_save_every is not None:
        each = f"{_time(calendar.save_seconds)} to write one"
        yield "", f"checkpoints: {each}; every {calendar.best_save_every:,} steps would lose the least time"


def _jobs(calendar: Calendar) -> str:
    jobs = output.plural(calendar.jobs, "job")
    return f" in {jobs}" + (f" of {_time(calendar.job_limit_seconds)}" if calendar.job_limit_seconds else "")


def _bill_rows(bill: Bill) -> Iterator[Row]:
    known = {"node-hour": bill.node_hours, "GPU-hour": bill.gpu_hours}
    hours = [f"{_amount(number)} {unit}s" for unit, number in known.items() if number is not None and unit != bill.unit]
    if bill.units is None:
        yield "bill", f"{', '.join(hours)}; what the site bills for them is unknown"
    else:
        yield "bill", f"{_amount(bill.units)} {bill.unit}s{_share(bill)}; {', '.join(hours)}"
    if bill.modes:
        yield "", f"fits {'; '.join(bill.modes)}"
    elif bill.larger_modes:
        yield "", f"takes less than one must ask for in {'; '.join(bill.larger_modes)}"
    elif bill.unit is not None:
        yield "", "fits none of the known access modes on this machine"


def _share(bill: Bill) -> str:
    if bill.share is None:
        return ""
    whole = f"the {bill.granted:,.0f} granted" if bill.granted else f"the most that {bill.access} gives"
    return f": {_percent(bill.share)} of {whole}"


def _energy_rows(energy: Energy) -> Iterator[Row]:
    boundaries = (("devices", energy.device), ("nodes", energy.node), ("facility", energy.facility))
    missing = {"devices": "hardware.device_power_w", "nodes": "hardware.node_power_w", "facility": "factory.pue"}
    known = [f"{_band(band)} MWh {name}" for name, band in boundaries if band]
    first = next((name for name, band in boundaries if band is None), None)
    lacking = [f"{first} unknown ({missing[first]} is not known)"] if first else []
    yield "energy", ", ".join(known + lacking)
    if energy.carbon and energy.grid:
        grid = f"{energy.grid.name}: {energy.grid.g_per_kwh:,.0f} g/kWh"
        yield "carbon", f"{_band(energy.carbon)} t CO2e for the {energy.carbon_boundary} ({grid})"
    else:
        yield "carbon", "unknown"


def _compute_rows(compute: TrainingCompute) -> Iterator[Row]:
    by_hardware = (
        f", {_flop(compute.hardware)} by hardware and time ({compute.utilisation:.0%} of the peak)"
        if compute.hardware is not None
        else "; by hardware and time unknown"
    )
    yield "AI Act", f"{_flop(compute.architecture)} FLOP by architecture{by_hardware}"
    yield "", f"{_mark(compute.gpai, '1e23')} (general-purpose), {_mark(compute.systemic, '1e25')} (systemic risk)"
    if compute.methods_disagree:
        yield "", f"the two differ by more than 30 %: they agree at {compute.implied_utilisation:.0%} of the peak"
    if compute.gpai != "below":
        yield "", f"a modification with more than {_flop(compute.one_third)} FLOP makes its maker a provider"


def _mark(position: Position, mark: str) -> str:
    return f"{_MARKS[position]} {mark}"


def _storage_rows(storage: StorageUse) -> Iterator[Row]:
    kept = f"{output.plural(storage.kept, 'checkpoint')} of {output.size(storage.checkpoint_bytes)}"
    yield "storage", f"at most {output.size(storage.kept_bytes)} in {output.plural(storage.files, 'file')}: {kept}"
    by_answer: dict[str, list[str]] = {}
    for use in storage.areas:
        by_answer.setdefault(_fits(use), []).append(use.name)
    if by_answer:
        yield "", "; ".join(f"{answer} {', '.join(names)}" for answer, names in by_answer.items())
    for use in storage.areas:
        if use.billed is not None and use.fits is not False:
            yield "", f"{use.name}: {_amount(use.billed)} TB-hours billed at most"


def _fits(use: AreaUse) -> str:
    """What to say before an area's name."""
    if use.fits is not None:
        return "fits" if use.fits else "does not fit"
    return "fits, as far as limits are known," if use.fits_bytes or use.fits_files else "limits unknown:"


def _band(band: Band) -> str:
    """`61 (55 to 72)`."""
    return f"{_amount(band.expected)} ({_amount(band.low)} to {_amount(band.high)})"


def _amount(number: float) -> str:
    """Three figures at least: `152,880`, `61.3`, `0.0412`."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _percent(share: float) -> str:
    """Two figures: `31%`, `0.42%`."""
    return f"{share:.0%}" if share >= 0.1 else f"{100 * share:.2g}%"


def _flop(number: float) -> str:
    """Two significant figures, as the Commission asks for: `1.6e23`."""
    return f"{number:.1e}".replace("e+", "e")


def _time(seconds: float) -> str:
    """The largest unit that fits: `38.2 days`, `2 days`, `40 seconds`."""
    if seconds < 1:
        return "less than a second"
    for unit, length in (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0)):
        if seconds >= length or unit == "second":
            break
    number = f"{seconds / length:,.1f}".removesuffix(".0")
    return f"{number} {unit}{'' if number == '1' else 's'}"
