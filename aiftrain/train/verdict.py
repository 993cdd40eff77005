"""The verdict on a step: is its loss or gradient norm one to train on, and what follows where it is not.

It is a pure function of the settings, of what it remembers, and of two numbers that all ranks share. So all ranks
decide alike, and a resumed run decides as it did before.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from aiftrain.checkpoint.history import History
from aiftrain.checkpoint.loss_scale import LossScale
from aiftrain.run.guard import Answer, GuardSpec
from aiftrain.run.precision import LossScaleSpec

Trouble = Literal["non_finite", "norm_spike", "loss_spike", "overflow"]

_HARDNESS = get_args(Answer)  # in ascending order
_NORMAL = 1.4826  # standard deviations of a normal distribution in a median absolute deviation
_LEAST_SPREAD = 0.02  # of the median: among values that hardly differ, any small change would be a spike


@dataclass(frozen=True)
class Verdict:
    """On one step. `loss` is in nats a token, `norm` is that of the gradients before clipping.

    `limit`: what a value was allowed to be, and `median`: what it usually is, where it was a spike.
    """

    loss: float
    norm: float
    trouble: Trouble | None = None
    answer: Answer = "ignore"
    median: float | None = None
    limit: float | None = None

    @property
    def overflows(self) -> bool:
        """Whether the loss was multiplied by more than fp16 can bear: no trouble of the run."""
        return self.trouble == "overflow"

    @property
    def applies(self) -> bool:
        """Whether the optimizer takes the step."""
        return self.trouble is None or self.answer == "ignore"

    def numbers(self) -> dict[str, float | None]:
        """For a record: what is not finite is null there."""
        values = {"loss": self.loss, "grad_norm": self.norm, "median": self.median, "limit": self.limit}
        return {name: finite(value) for name, value in values.items()}

    def __str__(self) -> str:
        if self.trouble in ("non_finite", "overflow"):
            return f"loss {self.loss:.4g} and gradient norm {self.norm:.4g}"
        name, value = ("gradient norm", self.norm) if self.trouble == "norm_spike" else ("loss", self.loss)
        return f"{name} {value:.4g}, where {self.median:.4g} is usual and {self.limit:.4g} the limit"


def judge(spec: GuardSpec, history: History, loss: float, norm: float, *, may_overflow: bool = False) -> Verdict:
    """What to do about a step with this mean loss and gradient norm, before it is applied.

    may_overflow: the loss was multiplied by a factor that may have been too large, and can fall.
    """
    if may_overflow and math.isfinite(loss) and not math.isfinite(norm):
        return Verdict(loss, norm, "overflow", "skip")
    if not (math.isfinite(loss) and math.isfinite(norm)):
        return Verdict(loss, norm, "non_finite", _answer(spec, history, spec.non_finite))
    spikes = [
        Verdict(loss, norm, trouble, _answer(spec, history, wanted), median, limit)
        for trouble, value, median, limit, wanted in _looks(spec, history, loss, norm)
        if value > limit
    ]
    return max(spikes, key=lambda spike: _HARDNESS.index(spike.answer), default=Verdict(loss, norm))


def remember(spec: GuardSpec, history: History, verdict: Verdict) -> History:
    """What is known after a step that was applied or skipped."""
    if verdict.overflows:
        return history
    return history.applied(verdict.loss, verdict.norm, spec.window) if verdict.applies else history.skip()


def rescaled(spec: LossScaleSpec, scale: LossScale, verdict: Verdict) -> LossScale:
    """What the loss is multiplied by after a step. One that is in trouble for another reason says nothing of it."""
    if verdict.overflows:
        return scale.after_overflow(spec)
    return scale.after_good(spec) if math.isfinite(verdict.norm) else scale


def finite(value: float | None) -> float | None:
    """The value; None where it is no number that JSON has."""
    return value if value is not None and math.isfinite(value) else None


def _answer(spec: GuardSpec, history: History, wanted: Answer) -> Answer:
    """The answer that is wanted, or the next harder one where it was given as often as it may be."""
    if wanted == "skip" and history.skips_in_row >= spec.skips_in_row:
        wanted = "rollback"
    if wanted == "rollback" and len(history.rollbacks) >= spec.rollbacks:
        return "stop"
    return wanted


def _looks(
    spec: GuardSpec, history: History, loss: float, norm: float
) -> Iterator[tuple[Trouble, float, float, float, Answer]]:
    """Each value that may be a spike, its median and limit, and the answer where it is one."""
    if len(history.losses) >= spec.least_steps:
        yield "norm_spike", norm, *_usual(history.norms, spec.norm_sigmas), spec.norm_spike
        yield "loss_spike", loss, *_usual(history.losses, spec.loss_sigmas), spec.loss_spike


def _usual(values: Sequence[float], sigmas: float) -> tuple[float, float]:
    """The median of past values, and what the next may be."""
    median = statistics.median(values)
    deviation = statistics.median(abs(value - median) for value in values)
    return median, median + sigmas * max(_NORMAL * deviation, _LEAST_SPREAD * abs(median))
