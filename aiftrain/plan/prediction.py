"""What is predicted of a run: how fast it goes, with a range, the memory it takes, what it costs."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from aiftrain.plan.cost import Cost, cost
from aiftrain.plan.flops import run_flops
from aiftrain.plan.memory import checkpoint_bytes
from aiftrain.plan.memory_use import MemoryUse
from aiftrain.plan.room import has_room, memory, what_fits
from aiftrain.plan.throughput.assumed import assumed_figures
from aiftrain.plan.throughput.constants import Calibration
from aiftrain.plan.throughput.figures import as_measured
from aiftrain.plan.throughput.layer import UnknownFigure
from aiftrain.plan.throughput.own import calibration_for
from aiftrain.plan.throughput.step import Setting, Shape, StepTime, mean_time, step_time
from aiftrain.plan.traffic import mean_gathers, travelling_bytes
from aiftrain.run.base import Strict
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import Precision, RunSpec
from aiftrain.run.timeline import Phase

STACK = "aiftrain"
FP8_SHARE = 0.35  # of the data sheet's gain that ours shows: two models on one H200 (docs/verification.md)
STARTUP_SECONDS = 300.0  # assumed: from a job's start to its first step


class Rate(Strict):
    """A predicted rate. `low` and `high` seconds of a step: nine of ten runs are expected between them."""

    seconds_per_step: float  # the mean over all stages
    low: float
    high: float
    tokens_per_s: float  # of all devices
    tokens_per_s_per_device: float
    flop_share: float | None  # model FLOPs over the data sheet's peak
    parts: dict[str, float]  # share of the step, by what it is spent on
    calibrated: bool  # whether runs of this hardware are behind it
    own_runs: int  # of the user's, at this site, to which the planner was fitted
    bench: str | None = None  # when the user's bench measured this hardware at this site
    assumed: tuple[str, ...]  # in the place of figures of the hardware that nobody documents

    @property
    def well_founded(self) -> bool:
        """Whether runs of this hardware and documented figures are behind it."""
        return self.calibrated and not self.assumed


class Prediction(Strict):
    """What is predicted of a run. Without a rate there is no cost, and `lacking` says what stands in the way."""

    memory: MemoryUse
    fits: bool | None  # None: nobody documents the memory
    rate: Rate | None
    cost: Cost | None
    days_low: float | None
    days_high: float | None
    lacking: str | None
    room: str | None  # what would fit, where this does not

    @property
    def assumptions(self) -> tuple[str, ...]:
        if self.rate is None or self.cost is None:
            return ()
        figures = (f"undocumented: {', '.join(self.rate.assumed)}",) if self.rate.assumed else ()
        return (_grounds(self.rate), *figures, *self.cost.assumptions)

    @property
    def unknowns(self) -> tuple[str, ...]:
        return self.cost.unknowns if self.cost else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        tight = (f"it will probably run out of memory; {self.room}",) if self.room else ()
        return tight + (self.cost.warnings if self.cost else ())


def _grounds(rate: Rate) -> str:
    """What the predicted time of a step rests on."""
    own = [f"your bench of {rate.bench} here, in the place of the profile's figures"] if rate.bench else []
    own += [f"{rate.own_runs} of your own runs here"] if rate.own_runs else []
    if own:
        return f"the time of a step rests on {' and '.join(own)}"
    runs = "published runs on this hardware" if rate.calibrated else "published runs on other hardware"
    ours = "aiftrain itself was measured on one GPU alone and is taken to be as fast as PyTorch FSDP"
    return f"the time of a step rests on {runs}; {ours}"


def predict(spec: RunSpec, layout: ParallelLayout, precision: Precision) -> Prediction:
    """Raises ConfigError where no step fits into a job, or failures outrun the checkpoints."""
    use = memory(spec, layout, precision)
    fits = has_room(spec, use)
    room = what_fits(spec, precision) if fits is False else None
    try:
        speed = rate(spec, layout, precision)
    except UnknownFigure as unknown:
        nothing: dict[str, None] = dict.fromkeys(("rate", "cost", "days_low", "days_high"))
        return Prediction(memory=use, fits=fits, room=room, lacking=str(unknown), **nothing)
    low, expected, high = (_cost(spec, layout, seconds) for seconds in (speed.low, speed.seconds_per_step, speed.high))
    return Prediction(
        memory=use,
        fits=fits,
        room=room,
        rate=speed,
        cost=expected,
        days_low=low.calendar.days,
        days_high=high.calendar.days,
        lacking=None,
    )


def _cost(spec: RunSpec, layout: ParallelLayout, seconds_per_step: float) -> Cost:
    return cost(
        spec,
        layout,
        seconds_per_step=seconds_per_step,
        checkpoint_bytes=checkpoint_bytes(spec),
        startup_seconds=STARTUP_SECONDS,
    )


def setting_of(spec: RunSpec, layout: ParallelLayout, precision: Precision, calibration: Calibration) -> Setting:
    """What the time of a step depends on, for our own engine on this run's hardware, before the first stage."""
    return Setting(
        shape=Shape.of(spec.model),
        layout=layout,
        hardware=as_measured(spec.hardware, layout, precision, calibration),
        sequence_length=spec.train.sequence_length,
        precision=precision,
        constants=calibration.constants,
        stack=calibration.named(STACK),
        travelling=travelling_bytes(spec, layout, precision),
        secondary_group=spec.parallelism.secondary_group,
    )


def rate(spec: RunSpec, layout: ParallelLayout, precision: Precision) -> Rate:
    """Raises UnknownFigure where nobody documents a figure that the time of a step depends on."""
    calibration = calibration_for(spec.factory.name)
    setting = setting_of(spec, layout, precision, calibration)
    if spec.train.fp8 != "none":
        constants = setting.constants.model_copy(update={"fp8_share": FP8_SHARE})
        setting = replace(setting, precision="fp8", constants=constants)
    spans = [(step_time(_during(phase, spec, setting)), steps) for phase, steps in spec.timeline.spans()]
    time = mean_time(spans)
    factor = calibration.constants.range_factor(spec.hardware.name)
    return Rate(
        seconds_per_step=time.total,
        low=time.total / factor,
        high=time.total * factor,
        tokens_per_s=time.tokens / time.total,
        tokens_per_s_per_device=time.tokens_per_s_per_device,
        flop_share=_flop_share(spec, time, precision),
        parts=_parts(time),
        calibrated=spec.hardware.name in calibration.constants.hardware,
        own_runs=calibration.own_runs,
        bench=figures.date if (figures := calibration.figures.get(spec.hardware.name)) else None,
        assumed=tuple(assumed_figures(setting.hardware, layout.nodes)),
    )


def _during(phase: Phase, spec: RunSpec, setting: Setting) -> Setting:
    layout = setting.layout.during(phase)
    changes: dict[str, Any] = {"layout": layout, "sequence_length": phase.sequence_length}
    if layout.zero_stage == 3:
        changes["gathers"] = mean_gathers(spec, layout, setting.travelling or setting.element)
    return replace(setting, **changes)


def _flop_share(spec: RunSpec, time: StepTime, precision: Precision) -> float | None:
    peak = spec.hardware.peak_bf16_tflops
    if peak is None or precision != "bf16":
        return None
    per_token = run_flops(spec) / spec.timeline.total_tokens
    return per_token * time.tokens_per_s_per_device / (peak * 1e12)


def _parts(time: StepTime) -> dict[str, float]:
    names = [field.name for field in fields(time) if field.name not in ("tokens", "devices")]
    return {name: getattr(time, name) / time.total for name in names}
