"""The user's own calibration: what runs and benches at one site say of it, on top of the shipped constants."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import yaml
from pydantic import ValidationError

from aiftrain.errors import MachineError, UserError
from aiftrain.plan.groups import read_yaml
from aiftrain.plan.throughput.constants import Calibration, Figures, MatmulRates, shipped
from aiftrain.plan.throughput.fit import FACTORS
from aiftrain.run.base import Strict
from aiftrain.run.durable import replace_text


class OwnCalibration(Strict):
    """What `plan --calibrate` keeps of one site: factors, what they were fitted to, and how well they fit."""

    runs: tuple[str, ...]
    date: str
    hardware: dict[str, float] = {}
    stacks: dict[str, float] = {}
    talks: dict[str, float] = {}
    matmul_tflops: MatmulRates = {}
    benches: tuple[str, ...] = ()
    figures: dict[str, Figures] = {}  # by hardware
    spread: float


def folder() -> Path:
    """Where the user's calibrations lie: $XDG_CONFIG_HOME/aiftrain/throughput."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "aiftrain" / "throughput"


@cache
def calibration_for(factory: str) -> Calibration:
    """The shipped calibration, with what the user fitted at that site. Raises UserError where that file is damaged."""
    own = read(factory)
    return shipped() if own is None else with_own(shipped(), own)


def with_own(calibration: Calibration, own: OwnCalibration) -> Calibration:
    """`calibration` with the user's own factors and rates in place of its own."""
    factors = {name: getattr(calibration.constants, name) | getattr(own, name) for name in FACTORS}
    constants = calibration.constants.model_copy(update={**factors, "spread": own.spread})
    changes = {"constants": constants, "measured": own.matmul_tflops, "own_runs": len(own.runs), "date": own.date}
    return calibration.model_copy(update={**changes, "figures": own.figures})


def read(factory: str) -> OwnCalibration | None:
    """The user's calibration of a site, if there is one."""
    file = folder() / f"{factory}.yaml"
    if not file.is_file():
        return None
    try:
        return OwnCalibration.model_validate(read_yaml(file))
    except ValidationError as error:
        raise UserError(f"{file} is no calibration: {error}; delete it, or run plan --calibrate again") from error


def write(factory: str, own: OwnCalibration) -> Path:
    """Keep a site's calibration; gives the file. Raises MachineError where it cannot be written."""
    file = folder() / f"{factory}.yaml"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_text(file, yaml.safe_dump(own.model_dump(mode="json"), sort_keys=False))
    except OSError as error:
        raise MachineError(f"cannot write {file}: {error.strerror}") from error
    return file
