"""What a pipeline cannot be, and what it is not worth being."""

from __future__ import annotations

from collections.abc import Iterator

from aiftrain.errors import Problem
from aiftrain.plan.memory import STAGES
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec


def zero_stages(spec: RunSpec) -> tuple[int, ...]:
    """The ZeRO stages that go with the run's other axes."""
    return STAGES[:2] if spec.parallelism.pipeline > 1 else STAGES


def pipeline_problems(spec: RunSpec) -> Iterator[Problem]:
    """Stages without layers, and ZeRO stages whose traffic would stop the pipeline."""
    stages, layers, zero = spec.parallelism.pipeline, spec.model.num_layers, spec.parallelism.stage
    if stages > layers:
        found = f"{stages} stages, but the model has {layers} layers, and every stage needs one"
        yield Problem("parallelism.pipeline", found, f"parallelism.pipeline={layers} or less")
    if zero not in zero_stages(spec):
        shared = "gradients" if zero == 2 else "weights and gradients"
        found = f"{zero}, which exchanges {shared} in every pass, while the {stages} stages of the pipeline wait"
        fits = f"parallelism.zero_stage=1, or no pipeline: parallelism=zero{zero}"
        yield Problem("parallelism.zero_stage", found, fits)


def pipeline_warnings(layout: ParallelLayout) -> Iterator[str]:
    """A pipeline that is never full. One forward, one backward: arXiv 2104.04473, section 2.2."""
    stages, micro_batches = layout.pipeline_parallel, layout.accumulation
    if micro_batches < stages:
        idle = (stages - 1) / (micro_batches + stages - 1)
        yield (
            f"the {stages} stages of the pipeline get {micro_batches} micro-batches a step and are idle {idle:.0%} of "
            "the time: a larger train.global_batch or a smaller train.micro_batch fills it"
        )
