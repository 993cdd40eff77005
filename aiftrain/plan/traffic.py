"""What one rank of our engine hands to collectives in an optimizer step, in bytes by kind, for every strategy.

tests/ranks/test_traffic.py holds it against what ranks really hand over (train/traffic.py). A few numbers of a step,
such as the gradients' norm, are left out, and so are what a rank alone in its group hands to itself and what Muon does
to put matrices together.
"""

from __future__ import annotations

from collections import Counter

from aiftrain.plan.buckets import live_elements
from aiftrain.plan.gathers import gathers
from aiftrain.plan.layer_traffic import LayerTraffic
from aiftrain.plan.memory import persistent_elements, uses_autocast
from aiftrain.plan.state_traffic import state_traffic
from aiftrain.run.base import Strict
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.precision import is_half
from aiftrain.run.spec import Precision, RunSpec


class Traffic(Strict):
    """Bytes that one rank hands over in a step. An all-to-all is handed what stays on the rank as well."""

    all_reduce: int = 0
    all_gather: int = 0
    reduce_scatter: int = 0
    all_to_all: int = 0
    send: int = 0

    @property
    def total(self) -> int:
        return self.all_reduce + self.all_gather + self.reduce_scatter + self.all_to_all + self.send


def traffic(spec: RunSpec, layout: ParallelLayout, precision: Precision) -> Traffic:
    """Of a rank in the stage of the pipeline that hands over most, in a step as the run begins."""
    stages = range(layout.pipeline_parallel)
    return max((stage_traffic(spec, layout, precision, stage) for stage in stages), key=lambda each: each.total)


def stage_traffic(
    spec: RunSpec, layout: ParallelLayout, precision: Precision, stage: int = 0, *, reuse: int | None = None
) -> Traffic:
    """Of a rank in one stage of the pipeline; of what tokens decide, the mean over ranks.

    reuse: DeepSpeed's stage3_max_reuse_distance; None: what plan/engine_config.py gives it.
    """
    inner = 2 if is_half(precision) else 4
    wide = travelling_bytes(spec, layout, precision)  # also of what is summed up between layers
    layers = layout.layers(stage, spec.model.num_layers)
    reuse = live_elements(spec, wide) if reuse is None else reuse
    length = spec.train.sequence_length
    of_layers = LayerTraffic(spec.model, layout, layers, length, weight=wide, hidden=wide, inner=inner)
    counted: Counter[str] = Counter()
    for kind, size in state_traffic(spec, layout, layers, width=wide, reuse=reuse):
        counted[kind] += size
    for kind, size in of_layers.handed_over():
        counted[kind] += layout.accumulation * size
    if layout.pipeline_parallel > 1 and spec.model.tie_embeddings and (of_layers.is_first or of_layers.is_last):
        table = spec.model.vocab_size * spec.model.hidden_size // layout.tensor_parallel
        counted["send"] += wide * table  # lent to the last stage; its gradient given back
    return Traffic(**counted)


def travelling_bytes(spec: RunSpec, layout: ParallelLayout, precision: Precision) -> int:
    """Of a weight or gradient on its way between ranks."""
    return 2 if is_half(precision) and not uses_autocast(spec, precision, layout.zero_stage) else 4


def mean_gathers(spec: RunSpec, layout: ParallelLayout, element: int) -> float:
    """How often stage 3 gathers a weight in a micro-batch, on the average; `element`: bytes of one."""
    first, again = gathers(spec.model, layout, persistent_elements(spec.model), live_elements(spec, element))
    return 1 + again / first if first else 1.0
