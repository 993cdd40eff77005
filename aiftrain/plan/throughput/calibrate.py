"""`plan --calibrate`: from what runs at one site reached to the factors in which its machines differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from statistics import median

from aiftrain.errors import UserError
from aiftrain.plan.prediction import setting_of
from aiftrain.plan.throughput.constants import Calibration, Constants, MatmulRates, shipped
from aiftrain.plan.throughput.fit import FACTORS, Measured, error, fit
from aiftrain.plan.throughput.layer import UnknownFigure
from aiftrain.plan.throughput.own import OwnCalibration
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


def calibrate(runs: Sequence[Observed]) -> OwnCalibration:
    """What the runs say of their site. Raises UserError where they are of several, or cannot be predicted at all."""
    sites = sorted({run.spec.factory.name for run in runs})
    if len(sites) > 1:
        raise UserError(f"--calibrate takes runs of one site at a time; these are of {', '.join(sites)}")
    rates = _matmul_rates(runs)
    calibration = shipped().model_copy(update={"measured": rates})
    measured = [_measured(run, calibration) for run in runs]
    constants = fit(measured, calibration.constants, {}, _FACTORS)
    fitted = {name: _changed(getattr(calibration.constants, name), getattr(constants, name)) for name in FACTORS}
    return OwnCalibration(
        runs=tuple(run.name for run in runs),
        date=date.today().isoformat(),
        matmul_tflops=rates,
        spread=_spread(measured, constants, calibration.constants),
        **fitted,
    )


def _measured(run: Observed, calibration: Calibration) -> Measured:
    layout, precision = run.execution.layout, run.execution.precision
    setting = setting_of(run.spec, layout, precision, calibration)
    measured = Measured(setting, run.tokens_per_s / layout.world_size)
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
    squares = sum(error(run, constants) ** 2 for run in runs)
    shipped_one = max(before.spread_on(run.setting.hardware.name) for run in runs)
    return _short(math.sqrt((squares + _AS_MANY_RUNS * shipped_one**2) / (len(runs) + _AS_MANY_RUNS)))


def _short(number: float) -> float:
    """Four figures: more would pretend."""
    return float(f"{number:.4g}")
