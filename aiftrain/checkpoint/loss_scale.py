"""By how much the losses of an fp16 run are multiplied: part of every checkpoint, so that a resumed run goes on alike.

`LossScaleSpec` has the rule and its settings. The factor is the same on all ranks and changes between steps alone.
"""

from __future__ import annotations

from pydantic import Field

from aiftrain.run.base import Strict
from aiftrain.run.precision import LossScaleSpec


class LossScale(Strict):
    """`good_steps`: with finite gradients, since the last that had others or the last doubling; `patience`: steps with
    others until the factor falls, that step counted."""

    factor: float = Field(gt=0)
    good_steps: int = Field(0, ge=0)
    patience: int = Field(ge=1)

    @classmethod
    def first(cls, spec: LossScaleSpec) -> LossScale:
        """Of a run's first step."""
        return cls(factor=spec.initial, patience=spec.hysteresis)

    def can_yield(self, spec: LossScaleSpec) -> bool:
        """Whether gradients that are not finite may be the factor's fault, and it can do something about them."""
        return self.factor > spec.minimum or self.patience > 1

    def after_good(self, spec: LossScaleSpec) -> LossScale:
        """After a step whose gradients were finite."""
        if self.good_steps + 1 < spec.window:
            return self.model_copy(update={"good_steps": self.good_steps + 1})
        return LossScale(factor=2 * self.factor, patience=spec.hysteresis)

    def after_overflow(self, spec: LossScaleSpec) -> LossScale:
        """After a step whose gradients were not, and which was not applied."""
        if self.patience > 1:
            return self.model_copy(update={"good_steps": 0, "patience": self.patience - 1})
        return self.model_copy(update={"good_steps": 0, "factor": max(self.factor / 2, spec.minimum)})
