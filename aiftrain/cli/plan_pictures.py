"""From predictions to the pictures of the report, which know nothing of planning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from aiftrain.cli.planning import short
from aiftrain.errors import UserError
from aiftrain.plan.compare import Entry
from aiftrain.plan.counts import queue_limits
from aiftrain.plan.nodes import Option
from aiftrain.report.comparison import Bar, Span, draw_comparison
from aiftrain.report.scaling import Limit, Point, draw_scaling
from aiftrain.run.spec import RunSpec


def scaling(spec: RunSpec, by_nodes: Sequence[Option], file: Path) -> Path:
    """Draw tokens a second over nodes. Raises UserError where no number of nodes has a predicted rate."""
    points = [point for one in by_nodes if (point := _point(one)) is not None]
    if not points:
        lacking = by_nodes[-1].lacking if by_nodes else "no number of nodes shares out the global batch"
        raise UserError(f"nothing to draw for {spec.factory.name}: {lacking}")
    title = f"{spec.recipe} on {spec.factory.title}"
    draw_scaling(points, list(_limits(spec)), chosen=spec.nodes, title=title, file=file)
    return file


def comparison(entries: Sequence[Entry], title: str, deadline: float | None, file: Path) -> Path:
    """Draw days and energy of the sites that have a price. Raises UserError where none has."""
    bars = {entry.name: _bar(entry, entry.priced) for entry in entries if entry.priced is not None}
    if not bars:
        raise UserError("nothing to draw: none of the factories can be priced")
    left_out = [entry.name for entry in entries if entry.name not in bars]
    draw_comparison(list(bars.values()), title=title, deadline=deadline, left_out=left_out, file=file)
    return file


def _point(one: Option) -> Point | None:
    rate = one.candidate.rate
    if rate is None:
        return None
    tokens = rate.tokens_per_s * rate.seconds_per_step
    return Point(one.nodes, rate.tokens_per_s, low=tokens / rate.high, high=tokens / rate.low)


def _limits(spec: RunSpec) -> Iterator[Limit]:
    """Of the queues that the search uses and of the machine; the nodes on which each device has one sequence."""
    yield from (Limit(name, most) for name, most in queue_limits(spec))
    if spec.factory.nodes_total:
        yield Limit("the machine", spec.factory.nodes_total)
    yield Limit("one sequence a device", spec.train.global_batch // spec.hardware.devices_per_node)


def _bar(entry: Entry, one: Option) -> Bar:
    """Energy of the devices alone, which is known of most sites and so compares."""
    band, rate = one.energy.device, one.candidate.rate
    unit = f"{one.unit}s" if one.bill.unit else "node-hours (rule unknown)"
    return Bar(
        name=f"{entry.name}{'*' if entry.announced else ''}, {one.nodes:,} x {entry.hardware.devices_per_node}",
        days=Span(one.quickest, one.days, one.slowest),
        mwh=Span(band.low, band.expected, band.high) if band else None,
        bill=f"{short(one.units)} {unit}",
        measured=rate is not None and rate.calibrated,
    )
