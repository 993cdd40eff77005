"""Energy and carbon of a run, estimated before it runs: from power limits, not from counters."""

from __future__ import annotations

from functools import cache

from aiftrain.plan.calendar import Calendar
from aiftrain.plan.groups import read_yaml
from aiftrain.run.base import Strict
from aiftrain.run.spec import RunSpec
from aiftrain.shipped import conf_dir

# What a busy device draws of its power limit. Low: a whole H100 node in training drew 76 % of its rating (arXiv
# 2506.14551). Middle: H100s in OLMo 2's training up to 85 % (arXiv 2503.05804), and GH200 modules 560 W of a limit of
# 660 W in Apertus's estimate (arXiv 2509.14233). High: the limit itself, which BLOOM's 433 MWh assume (arXiv
# 2211.02001: 1,082,990 GPU-hours of 400 W) and Llama's model cards.
DRAW_LOW, DRAW, DRAW_HIGH = 0.76, 0.85, 1.0


class Band(Strict):
    """A figure and the range it most likely lies in."""

    low: float
    expected: float
    high: float

    def times(self, factor: float) -> Band:
        return Band(low=self.low * factor, expected=self.expected * factor, high=self.high * factor)

    def plus(self, addend: float) -> Band:
        return Band(low=self.low + addend, expected=self.expected + addend, high=self.high + addend)


class Grid(Strict):
    """How much CO2-equivalent a kWh of electricity stands for, in grams, and who says so."""

    name: str
    g_per_kwh: float


class Energy(Strict):
    """MWh of the devices, of the nodes with them, and of the facility with these; tonnes of CO2-equivalent.

    `carbon` is of the widest of the three boundaries that is known, named by `carbon_boundary`.
    """

    device: Band | None
    node: Band | None
    facility: Band | None
    grid: Grid | None
    carbon: Band | None
    carbon_boundary: str | None
    method: str
    unknowns: tuple[str, ...]


def energy(spec: RunSpec, calendar: Calendar) -> Energy:
    """The energy of a run over its whole calendar, checkpoints and restarts at full power."""
    device, node = _device_mwh(spec, calendar), None
    rest = spec.hardware.node_power_w
    if device is not None and rest is not None:
        node = device.plus(rest * calendar.node_hours / 1e6)
    facility = node.times(spec.factory.pue) if node is not None and spec.factory.pue is not None else None
    widest = next(((name, mwh) for name, mwh in _widest_first(device, node, facility) if mwh is not None), None)
    grid = grid_of(spec)
    return Energy(
        device=device,
        node=node,
        facility=facility,
        grid=grid,
        carbon=widest[1].times(grid.g_per_kwh / 1e3) if widest and grid else None,
        carbon_boundary=widest[0] if widest and grid else None,
        method=_method(spec),
        unknowns=_unknowns(spec, grid),
    )


def grid_of(spec: RunSpec) -> Grid | None:
    """The grid that the factory hangs on, or what the user knows better; None for a country without a figure."""
    if spec.plan.grid_g_per_kwh is not None:
        return Grid(name="plan.grid_g_per_kwh", g_per_kwh=spec.plan.grid_g_per_kwh)
    country, table = spec.factory.country, _grids()
    if country not in table["countries"]:
        return None
    return Grid(name=f"grid {country} {table['year']}", g_per_kwh=table["countries"][country])


@cache
def _grids() -> dict[str, dict[str, float]]:
    return read_yaml(conf_dir() / "grid.yaml")


def _device_mwh(spec: RunSpec, calendar: Calendar) -> Band | None:
    """Every device of a node draws, whether a rank owns it or not."""
    watts = spec.hardware.device_power_w
    if watts is None:
        return None
    limit = watts * spec.hardware.devices_per_node * calendar.node_hours / 1e6
    return Band(low=DRAW_LOW * limit, expected=DRAW * limit, high=DRAW_HIGH * limit)


def _widest_first(device: Band | None, node: Band | None, facility: Band | None) -> tuple[tuple[str, Band | None], ...]:
    return ("facility", facility), ("nodes", node), ("devices", device)


def _method(spec: RunSpec) -> str:
    watts = spec.hardware.device_power_w
    if watts is None:
        return "not estimated: the power of a device is not known"
    draw = f"{DRAW:.0%} ({DRAW_LOW:.0%} to {DRAW_HIGH:.0%})"
    parts = [f"{draw} of {watts:,.0f} W a device, all devices of the nodes, all hours"]
    if spec.hardware.node_power_w is not None:
        parts.append(f"{spec.hardware.node_power_w:,.0f} W for the rest of a node")
    if spec.factory.pue is not None:
        parts.append(f"times a PUE of {spec.factory.pue:g}")
    return "; ".join(parts)


def _unknowns(spec: RunSpec, grid: Grid | None) -> tuple[str, ...]:
    known = {
        "hardware.device_power_w": spec.hardware.device_power_w,
        "hardware.node_power_w": spec.hardware.node_power_w,
        "factory.pue": spec.factory.pue,
        "factory.country": grid,
    }
    return tuple(key for key, value in known.items() if value is None)
