"""The user's own calibration: constants fitted to runs at one site, on top of the shipped ones."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import yaml
from pydantic import ValidationError

from aiftrain.errors import UserError
from aiftrain.plan.groups import read_yaml
from aiftrain.plan.throughput.constants import Calibration, shipped
from aiftrain.plan.throughput.fit import FACTORS
from aiftrain.run.base import Strict


class OwnCalibration(Strict):
    """What `plan --calibrate` keeps of one site: factors, what they were fitted to, and how well they fit."""

    runs: tuple[str, ...]
    date: str
    hardware: dict[str, float] = {}
    stacks: dict[str, float] = {}
    talks: dict[str, float] = {}
    matmul_bf16_tflops: dict[str, float] = {}  # measured at the start of runs, where no profile states it
    spread: float


def folder() -> Path:
    """Where the user's calibrations lie: $XDG_CONFIG_HOME/aiftrain/throughput."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "aiftrain" / "throughput"


@cache
def calibration_for(factory: str) -> Calibration:
    """The shipped calibration, with what the user fitted at that site. Raises UserError where that file is damaged."""
    own = read(factory)
    calibration = shipped()
    if own is None:
        return calibration
    factors = {name: getattr(calibration.constants, name) | getattr(own, name) for name in FACTORS}
    constants = calibration.constants.model_copy(update={**factors, "spread": own.spread})
    return calibration.model_copy(update={"constants": constants})


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
    """Keep a site's calibration; gives the file."""
    file = folder() / f"{factory}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(own.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    return file
