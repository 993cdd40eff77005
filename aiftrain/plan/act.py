"""Training compute as the EU's guidelines on general-purpose AI models count it, both ways, against both marks.

The guidelines: Commission, C(2025) 7719, of 19 November 2025, annex on training compute. All operations count
alike whatever their precision; recomputed activations do not count; an estimate may be 30 % off if it says how it
was made. This is arithmetic and no legal advice: what follows for a model depends on more than its FLOPs.
"""

from __future__ import annotations

from typing import Literal

from aiftrain.plan.calendar import Calendar
from aiftrain.plan.flops import run_flops
from aiftrain.plan.memory import choose_precision
from aiftrain.run.base import Strict
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec

GPAI_MARK = 1e23  # section 2.1: indicates a general-purpose model, if it generates text, speech, images or video
SYSTEMIC_MARK = 1e25  # AI Act, article 51(2): presumption of systemic risk, of the cumulative compute
MARGIN = 0.3

Position = Literal["above", "near", "below"]


class TrainingCompute(Strict):
    """FLOPs of the run by both methods of the guidelines; None where a figure of the hardware is not known.

    `utilisation` is the predicted share of the dense peak while training steps; `implied_utilisation` the share
    over all device-hours that would make both methods equal. A modification of this model that takes more than
    `one_third` makes whoever modifies it a provider (guidelines, section 3.2).
    """

    architecture: float
    attention: float  # of `architecture`
    hardware: float | None
    utilisation: float | None
    implied_utilisation: float | None
    methods_disagree: bool | None  # by more than 30 %
    gpai: Position
    systemic: Position
    one_third: float
    assumptions: tuple[str, ...]
    unknowns: tuple[str, ...]
    warnings: tuple[str, ...]


def architecture_flops(active_parameters: float, tokens: float, attention_per_token: float = 0.0) -> float:
    """6 * P * D, and what attention does besides, which the short formula leaves out."""
    return (6.0 * active_parameters + attention_per_token) * tokens


def hardware_flops(units: float, seconds: float, peak_flops: float, utilisation: float) -> float:
    """N * L * H * U: units, seconds, peak FLOP/s of one, and the share of the peak that was used."""
    return units * seconds * peak_flops * utilisation


def modification_mark(original: float | None, *, systemic: bool = False) -> float:
    """FLOPs from which a modification counts as a model of its own: a third of the original's, or of its mark."""
    return (original if original is not None else SYSTEMIC_MARK if systemic else GPAI_MARK) / 3


def position(mark: float, estimates: list[float]) -> Position:
    """Where the estimates lie; `near` where 30 % more or less of any could be on the other side."""
    if min(estimates) * (1 - MARGIN) > mark:
        return "above"
    return "below" if max(estimates) * (1 + MARGIN) < mark else "near"


def training_compute(spec: RunSpec, layout: ParallelLayout, calendar: Calendar) -> TrainingCompute:
    """The compute of a run of `calendar` on `layout`."""
    model, tokens = spec.model, spec.timeline.total_tokens
    attention = run_flops(spec) / tokens - 6.0 * model.active_matmul_parameters
    architecture = architecture_flops(model.active_parameters, tokens, attention)
    peak = _peak_flops(spec)
    device_seconds = calendar.device_hours * 3600
    utilisation = _utilisation(spec, layout, calendar, peak) if peak else None
    hardware = hardware_flops(1, device_seconds, peak, utilisation) if peak and utilisation else None
    estimates = [architecture] if hardware is None else [architecture, hardware]
    gpai, systemic = position(GPAI_MARK, estimates), position(SYSTEMIC_MARK, estimates)
    return TrainingCompute(
        architecture=architecture,
        attention=attention * tokens,
        hardware=hardware,
        utilisation=utilisation,
        implied_utilisation=architecture / (device_seconds * peak) if peak else None,
        methods_disagree=None if hardware is None else abs(hardware / architecture - 1) > MARGIN,
        gpai=gpai,
        systemic=systemic,
        one_third=modification_mark(architecture),
        assumptions=_assumptions(spec, peak),
        unknowns=() if peak else ("hardware.peak_bf16_tflops",),
        warnings=_warnings(gpai, systemic),
    )


def _peak_flops(spec: RunSpec) -> float | None:
    """Dense peak of one device in the precision of the products, FLOP/s; data sheets give none for fp32."""
    hardware = spec.hardware
    peaks = {"bf16": hardware.peak_bf16_tflops, "fp16": hardware.peak_fp16_tflops or hardware.peak_bf16_tflops}
    tflops = peaks.get(choose_precision(spec))
    return tflops * 1e12 if tflops else None


def _utilisation(spec: RunSpec, layout: ParallelLayout, calendar: Calendar, peak: float) -> float:
    seconds = calendar.steps * calendar.seconds_per_step
    return run_flops(spec) / (seconds * layout.world_size * peak)


def _assumptions(spec: RunSpec, peak: float | None) -> tuple[str, ...]:
    active = "active parameters" if spec.model.moe else "parameters"
    notes = [
        f"training FLOPs by architecture: 6 x {active} x tokens and causal attention; nothing for recomputation, "
        "evaluation, other runs, or data made by other models"
    ]
    if peak:
        notes.append(
            f"training FLOPs by hardware: all device-hours at a dense peak of {peak / 1e12:,.0f} TFLOP/s times the "
            "predicted share of it; work that failures undo is in it"
        )
    return tuple(notes)


def _warnings(gpai: Position, systemic: Position) -> tuple[str, ...]:
    warnings = []
    if gpai != "below":
        warnings.append(
            f"training compute {gpai} 1e23 FLOP: in the EU an indication of a general-purpose AI model, with "
            "documentation to keep (AI Act, article 53)"
        )
    if systemic != "below":
        warnings.append(
            f"training compute {systemic} 1e25 FLOP: presumption of systemic risk; the Commission is to be told "
            "within two weeks of knowing that it will be met (AI Act, articles 51 and 52)"
        )
    return tuple(warnings)
