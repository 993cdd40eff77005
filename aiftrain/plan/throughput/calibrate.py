"""`plan --calibrate`: from what runs and benches at one site reached to the factors in which its machines differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from statistics import median

from aiftrain.errors import UserError
from aiftrain.plan.prediction import setting_of
from aiftrain.plan.throughput.constants import Calibration, Constants, Figures, MatmulRates, shipped
from aiftrain.plan.throughput.figures import figures_of
from aiftrain.plan.throughput.fit import FACTORS, Measured, error, fit
from aiftrain.plan.throughput.layer import UnknownFigure
from aiftrain.plan.throughput.own import OwnCalibration
from aiftrain.run.bench import Bench
from aiftrain.run.layout import Execution
from aiftrain.run.spec import RunSpec

# How far one site may be from the mean of all: standard deviations of the logarithm. Without a profile's figures, as on
# a CPU, the hardware's may be far off; what software does is known better.
_FACTORS = {"hardware": 0.5, "stacks": 0.1, "talks": 0.5}
_AS_MANY_RUNS = 3  # as the shipped spread counts for beside the runs' own


@dataclass(frozen=True)
class Observed:
    """A run that went its way. Rates are of all devices together."""

    name: str
    spec: RunSpec
    execution: Execution
    tokens_per_s: float
    matmul_tflops: float | None  # measured at its start, at its precision

    @property
    def devices(self) -> float:
        """Devices as the hardware's profile counts them: the ranks, or on CPUs the nodes that they share."""
        layout = self.execution.layout
        return layout.nodes * min(layout.ranks_per_node, self.spec.hardware.devices_per_node)


@dataclass(frozen=True)
class Benched:
    """A bench: what it measured of the hardware of `spec`, and its training steps as short runs."""

    name: str
    spec: RunSpec
    bench: Bench
    steps: tuple[Observed, ...]


def calibrate(runs: Sequence[Observed], benches: Sequence[Benched] = ()) -> OwnCalibration:
    """What runs and benches say of their site. UserError where they are of several, or cannot be predicted at all.

    A bench's figures replace the profile's, the newest one's where several are of one hardware. Its steps, one of each
    strategy, count together as one run.
    """
    sites = sorted({spec.factory.name for spec in [each.spec for each in runs] + [each.spec for each in benches]})
    if len(sites) > 1:
        raise UserError(f"--calibrate takes runs of one site at a time; these are of {', '.join(sites)}")
    rates, figures = _matmul_rates(runs), _figures(benches)
    calibration = shipped().model_copy(update={"measured": rates, "figures": figures})
    measured = [_measured(run, calibration) for run in runs]
    for bench in benches:
        measured += [_measured(step, calibration, 1 / len(bench.steps)) for step in bench.steps]
    constants = fit(measured, calibration.constants, {}, _FACTORS) if measured else calibration.constants
    fitted = {name: _changed(getattr(calibration.constants, name), getattr(constants, name)) for name in FACTORS}
    return OwnCalibration(
        runs=tuple(run.name for run in runs),
        benches=tuple(bench.name for bench in benches),
        date=date.today().isoformat(),
        matmul_tflops=rates,
        figures=figures,
        spread=_spread(measured, constants, calibration.constants),
        **fitted,
    )


def _figures(benches: Sequence[Benched]) -> dict[str, Figures]:
    """By hardware, of the newest bench of each."""
    by_date = sorted(benches, key=lambda each: each.bench.date)
    return {each.spec.hardware.name: _rounded(figures_of(each.bench, each.spec.hardware)) for each in by_date}


def _rounded(figures: Figures) -> Figures:
    rates = {precision: _short(rate) for precision, rate in figures.matmul_tflops.items()}
    numbers = {name: _short(value) for name, value in figures if isinstance(value, float)}
    return figures.model_copy(update={**numbers, "matmul_tflops": rates})


def _measured(run: Observed, calibration: Calibration, weight: float = 1.0) -> Measured:
    layout, precision = run.execution.layout, run.execution.precision
    setting = setting_of(run.spec, layout, precision, calibration)
    measured = Measured(setting, run.tokens_per_s / layout.world_size, weight)
    try:
        error(measured, calibration.constants)
    except UnknownFigure as unknown:
        raise UserError(f"{run.name}: {unknown}; a run with train.measure_matmul=true measures the rate") from unknown
    return measured


def _matmul_rates(runs: Sequence[Observed]) -> MatmulRates:
    """TFLOP/s of one device, by hardware and precision: the median of what the runs measured."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        if run.matmul_tflops is not None:
            key = run.spec.hardware.name, run.execution.precision
            found.setdefault(key, []).append(run.matmul_tflops / run.devices)
    rates: MatmulRates = {}
    for (hardware, precision), values in found.items():
        rates.setdefault(hardware, {})[precision] = _short(median(values))
    return rates


def _changed(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: _short(value) for name, value in after.items() if value != before.get(name)}


def _spread(runs: Sequence[Measured], constants: Constants, before: Constants) -> float:
    """Standard deviation of ln(measured / predicted). A few runs say little of it, so that the shipped one counts."""
    squares = sum(run.weight * error(run, constants) ** 2 for run in runs)
    shipped_one = max((before.spread_on(run.setting.hardware.name) for run in runs), default=before.unseen_spread)
    count = sum(run.weight for run in runs)
    return _short(math.sqrt((squares + _AS_MANY_RUNS * shipped_one**2) / (count + _AS_MANY_RUNS)))


def _short(number: float) -> float:
    """Four figures: more would pretend."""
    return float(f"{number:.4g}")
