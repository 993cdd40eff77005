"""`plan --points`: the rate and the memory of each run in a table, or why they cannot be told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from aiftrain.plan.engine_traits import FSDP, NEVER
from aiftrain.plan.layouts import RECOMPUTE
from aiftrain.plan.memory import GIB, STAGES
from aiftrain.plan.memory_use import MemoryUse, memory_use
from aiftrain.plan.throughput.assumed import assumed_figures
from aiftrain.plan.throughput.constants import Calibration
from aiftrain.plan.throughput.layer import UnknownFigure
from aiftrain.plan.throughput.points import Point, point_of
from aiftrain.plan.throughput.step import Setting, step_time
from aiftrain.plan.throughput.table import CannotSay
from aiftrain.run.base import Strict
from aiftrain.run.model import ModelSpec
from aiftrain.run.spec import Recompute

_BEYOND = 1.5  # times the device's memory, with everything computed again: this model never ran there


class RowPrediction(Strict):
    """What is predicted of one row. `low` and `high`: nine of ten rates are expected between them.

    `tflops_per_gpu` counts as published tables do: 6 FLOPs an active matrix weight, the output projection among them,
    and the whole square of attention, 12 x layers x width of the queries x tokens (arXiv 2204.02311, appendix B).
    """

    id: str
    tokens_per_s_per_gpu: float | None = None
    low: float | None = None
    high: float | None = None
    tflops_per_gpu: float | None = None
    memory_gib: float | None = None
    fits: bool | None = None
    why: str | None = None
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Placed:
    """A point and the memory it takes. What its row leaves open is chosen so that it fits, if anything does.

    Recomputation that was chosen so counts in the memory only: published runs that leave it open are as fast as runs
    without any.
    """

    point: Point
    use: MemoryUse
    chosen: tuple[str, ...] = ()

    @property
    def fits(self) -> bool | None:
        """Whether a device has that much; None where nobody documents its memory."""
        have = self.point.setting.hardware.device_memory_gib
        return None if have is None else self.use.total <= have * GIB


def predict(rows: Iterable[Mapping[str, str]], calibration: Calibration) -> Iterator[RowPrediction]:
    """One prediction a row, in their order."""
    for row in rows:
        try:
            yield _prediction(placed(point_of(row, calibration)))
        except CannotSay as reason:
            yield RowPrediction(id=row["id"], why=str(reason))


def placed(point: Point) -> Placed:
    """The point in memory, in the first way that fits, or else in the one that takes least."""
    for way in _ways(point):
        if way.fits is not False:
            break
    return way


def cut_down(point: Point) -> str | None:
    """Why the model of a row cannot be what ran, if so: even with everything computed again it is far too large."""
    if not _is_far_too_large(point):
        return None
    need, have = memory_of(point, "full").total / GIB, point.setting.hardware.device_memory_gib
    name = point.setting.model.name
    return f"{name} would need {need:,.0f} of {have:,.0f} GiB: what ran can only have been a part of it"


def memory_of(point: Point, recompute: Recompute) -> MemoryUse:
    """The most that one rank needs. Software that never shares out weights, said to, does as FSDP does."""
    setting, traits = point.setting, point.traits
    if setting.layout.zero_stage == 3 and traits.weights_from == NEVER:
        traits = FSDP
    return memory_use(
        setting.model,
        setting.layout.model_copy(update={"recompute": recompute}),
        sequence_length=setting.sequence_length,
        precision="fp32" if setting.element == 4 else "bf16",
        traits=traits,
    )


def _is_far_too_large(point: Point) -> bool:
    have = point.setting.hardware.device_memory_gib
    return have is not None and memory_of(point, "full").total > _BEYOND * have * GIB


def _prediction(place: Placed) -> RowPrediction:
    point = place.point
    told = RowPrediction(
        id=point.id,
        memory_gib=place.use.total / GIB,
        fits=place.fits,
        why=cut_down(point),
        assumed=(*point.assumed, *place.chosen),
    )
    if told.why:
        return told
    hardware, nodes = point.setting.hardware, point.setting.layout.nodes
    try:
        assumed = (*told.assumed, *assumed_figures(hardware, nodes))
        return told.model_copy(update={"assumed": assumed, **_rates(point.setting)})
    except UnknownFigure as unknown:
        return told.model_copy(update={"why": str(unknown)})


def _rates(setting: Setting) -> dict[str, float]:
    rate = step_time(setting).tokens_per_s_per_device
    factor = setting.constants.range_factor(setting.hardware.name)
    flops = _published_flops(setting.model, setting.sequence_length)
    return {
        "tokens_per_s_per_gpu": rate,
        "low": rate / factor,
        "high": rate * factor,
        "tflops_per_gpu": rate * flops / 1e12,
    }


def _published_flops(model: ModelSpec, length: int) -> float:
    """FLOPs of a token with attention's whole square, where the model's own count has the causal half."""
    products = 6.0 * model.active_matmul_parameters
    return products + 2 * (model.flops_per_token(length) - products)


def _ways(point: Point) -> Iterator[Placed]:
    """The point with what its row leaves open filled in: as its software does, then computing and sharing out more."""
    first, stated = point.setting.layout.zero_stage, point.setting.layout.recompute
    for stage in _stages(point):
        layout = point.setting.layout.model_copy(update={"zero_stage": stage})
        one = replace(point, setting=replace(point.setting, layout=layout))
        for recompute in (stated,) if point.states_recompute else RECOMPUTE:
            chosen = [f"ZeRO stage {stage}"] if stage != first else []
            chosen += [f"memory with {recompute} recomputation"] if recompute != stated else []
            yield Placed(one, memory_of(one, recompute), tuple(chosen))


def _stages(point: Point) -> tuple[int, ...]:
    """Software with a stage of its own takes another one only where its own is out of the question."""
    first = point.setting.layout.zero_stage
    if point.states_zero:
        return (first,)
    if point.setting.stack.zero_stage == 0:
        return STAGES
    return (3,) if _is_far_too_large(point) else (first,)
