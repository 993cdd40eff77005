"""Sensitivity: how much faster or slower a layout would be if one figure were another."""

from __future__ import annotations

from collections.abc import Iterator

from aiftrain.plan.prediction import rate
from aiftrain.plan.throughput.layer import UnknownFigure
from aiftrain.run.base import Strict
from aiftrain.run.layout import ParallelLayout, make_layout
from aiftrain.run.spec import Precision, RunSpec


class Influence(Strict):
    """What a change does to tokens a second: 0.1 is a tenth more."""

    change: str
    effect: float


def sensitivity(spec: RunSpec, precision: Precision) -> list[Influence]:
    """What changes of hardware, nodes and layout would do to a decided spec, each by itself.

    Changes that have no meaning here are left out: of a figure that is unknown, to nodes that cannot share the batch.
    """
    before = _tokens_per_s(spec, precision)
    if before is None:
        return []
    changed = ((name, _tokens_per_s(form, precision)) for name, form in _changes(spec))
    return [Influence(change=name, effect=after / before - 1) for name, after in changed if after is not None]


def _changes(spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
    hardware, train = spec.hardware, spec.train
    matmul = "matmul_bf16_tflops" if hardware.matmul_bf16_tflops is not None else "peak_bf16_tflops"
    figures = (
        ("matmul rate -10 %", matmul, 0.9),
        ("memory bandwidth -10 %", "memory_gb_per_s", 0.9),
        ("links inside the node -50 %", "intra_node_gb_per_s", 0.5),
        ("network -50 %", "inter_node_gb_per_s", 0.5),
    )
    for name, figure, factor in figures:
        value = getattr(hardware, figure)
        if value is not None and (figure != "inter_node_gb_per_s" or spec.nodes > 1):
            yield name, spec.model_copy(update={"hardware": hardware.model_copy(update={figure: factor * value})})
    yield "nodes x 2", spec.model_copy(update={"nodes": 2 * spec.nodes})
    if spec.nodes % 2 == 0:
        yield "nodes / 2", spec.model_copy(update={"nodes": spec.nodes // 2})
    if train.micro_batch % 2 == 0:
        halved = train.model_copy(update={"micro_batch": train.micro_batch // 2})
        yield "micro-batch / 2", spec.model_copy(update={"train": halved})


def _tokens_per_s(spec: RunSpec, precision: Precision) -> float | None:
    layout = make_layout(spec)
    if not isinstance(layout, ParallelLayout):
        return None
    try:
        return rate(spec, layout, precision).tokens_per_s
    except UnknownFigure:
        return None
