"""Fitting the constants to measured runs: least squares of ln(measured / predicted), held near what is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from aiftrain.errors import UserError
from aiftrain.plan.throughput.constants import Constants
from aiftrain.plan.throughput.step import Setting, step_time

if TYPE_CHECKING:
    import numpy as np

# How far a constant may be expected from its start: the standard deviation of its logarithm.
PHYSICAL = {
    "matmul_share": 0.1,
    "tile": 0.7,
    "cast_bytes": 0.5,
    "fp8_share": 0.3,
    "fp4_share": 0.3,
    "flash_share": 0.3,
    "ampere_share": 0.3,
    "flash_1_share": 0.3,
    "unfused_share": 0.4,
    "score_passes": 0.4,
    "unfused_passes": 0.4,
    "traffic": 0.4,
    "memory_share": 0.1,
    "link_share": 0.2,
    "net_share": 0.3,
    "net_fall": 1.5,
    "hop_seconds": 1.0,
    "tensor_overlap": 0.4,
    "data_overlap": 0.6,
    "expert_overlap": 0.4,
    "expert_share": 0.4,
    "layer_seconds": 0.7,
    "step_seconds": 0.7,
    "straggle": 0.7,
}
FACTORS = {"hardware": 0.12, "stacks": 0.15, "talks": 0.4}  # the same, of what each machine and software may differ in

_AT_MOST_1 = ("fp8_share", "fp4_share", "net_share", "link_share", "memory_share", "expert_share")
_AT_LEAST_1 = ("tensor_overlap", "data_overlap", "expert_overlap")
_NOISE = 0.08  # of one measured rate: its standard deviation from a perfect model
_ROBUST = 0.12  # beyond this an error counts by its size, not its square, so that odd runs do not rule


@dataclass(frozen=True)
class Measured:
    """A run whose rate is known: tokens/s on one device. `weight` 1 is one independent measurement."""

    setting: Setting
    tokens_per_s_per_device: float
    weight: float = 1.0


def error(measured: Measured, constants: Constants) -> float:
    """ln(measured / predicted)."""
    predicted = step_time(replace(measured.setting, constants=constants)).tokens_per_s_per_device
    return math.log(measured.tokens_per_s_per_device / predicted)


def fit(
    runs: Sequence[Measured], start: Constants, priors: Mapping[str, float], factors: Mapping[str, float]
) -> Constants:
    """The constants named in `priors`, and the factors of the runs' machines and software, that fit the runs best.

    Raises UserError where scipy is not installed.
    """
    import numpy as np

    solve = _solver()
    free = [*((name, None) for name in priors), *_members(runs, factors)]
    deviations = np.array([priors[name] if key is None else factors[name] for name, key in free])
    weights = np.array([run.weight for run in runs]) ** 0.5 / _NOISE

    def residuals(logs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        constants = _moved(start, free, logs)
        errors = np.array([error(run, constants) for run in runs])
        gentle = np.sign(errors) * _ROBUST * np.sqrt(2 * (np.sqrt(1 + (errors / _ROBUST) ** 2) - 1))
        return np.concatenate([weights * gentle, logs / deviations])

    return _moved(start, free, solve(residuals, np.zeros(len(free)), max_nfev=25, diff_step=1e-3).x)


def spread(runs: Sequence[Measured], constants: Constants) -> float:
    """Standard deviation of ln(measured / predicted), from the central two thirds, which odd runs do not move."""
    errors = sorted(abs(error(run, constants)) for run in runs)
    return errors[int(0.683 * (len(errors) - 1))]


def _solver() -> Any:
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise UserError("fitting needs scipy: pip install 'aiftrain[calibrate]'") from None
    return least_squares


def _members(runs: Iterable[Measured], factors: Mapping[str, float]) -> list[tuple[str, str | None]]:
    """The factors that the runs say something about."""
    runs = list(runs)
    names = {
        "hardware": sorted({run.setting.hardware.name for run in runs}),
        "stacks": sorted({run.setting.stack.name for run in runs}),
        "talks": sorted({run.setting.stack.name for run in runs if run.setting.layout.world_size > 1}),
    }
    return [(factor, name) for factor in factors for name in names[factor]]


def _moved(start: Constants, free: Sequence[tuple[str, str | None]], logs: Iterable[float]) -> Constants:
    """The constants with those in `free` multiplied by e ** logs, inside what is physical."""
    changes: dict[str, Any] = {name: dict(getattr(start, name)) for name in FACTORS}
    for (name, key), log in zip(free, logs, strict=True):
        if key is None:
            changes[name] = _bounded(name, getattr(start, name) * math.exp(log))
        else:
            changes[name][key] = changes[name].get(key, 1.0) * math.exp(log)
    return start.model_copy(update=changes)


def _bounded(name: str, value: float) -> float:
    if name in _AT_MOST_1:
        return min(1.0, value)
    return max(1.0, value) if name in _AT_LEAST_1 else value
