"""What goes with a pipeline, and when it is not worth it."""

from __future__ import annotations

from collections.abc import Iterator

from aiftrain.plan.memory import STAGES
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec


def zero_stages(spec: RunSpec) -> tuple[int, ...]:
    """The ZeRO stages that go with the run's other axes."""
    return STAGES[:2] if spec.parallelism.pipeline > 1 else STAGES


def pipeline_warnings(layout: ParallelLayout) -> Iterator[str]:
    """A pipeline that is never full. One forward, one backward: arXiv 2104.04473, section 2.2."""
    stages, micro_batches = layout.pipeline_parallel, layout.accumulation
    if micro_batches < stages:
        idle = (stages - 1) / (micro_batches + stages - 1)
        yield (
            f"the {stages} stages of the pipeline get {micro_batches} micro-batches a step and are idle {idle:.0%} of "
            "the time: a larger train.global_batch or a smaller train.micro_batch fills it"
        )
