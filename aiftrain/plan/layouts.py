"""The layouts that the engine can run: ZeRO stages, micro-batches that share out the batch, modes of recomputation.

Other degrees of model parallelism are in axes.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from aiftrain.plan.axes import with_strategy
from aiftrain.plan.legality import layout_problems
from aiftrain.plan.pipeline import zero_stages
from aiftrain.run.layout import ParallelLayout, make_layout, sharing_problems
from aiftrain.run.spec import ParallelSpec, Recompute, RunSpec

RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")
_MOST_TOKENS = 131_072  # of one micro-batch: beyond it nothing gets faster


def legal(spec: RunSpec) -> Iterator[RunSpec]:
    """`spec` in every form that the engine can run on its nodes: another stage, micro-batch, mode of recomputation."""
    stages = [stage for stage in zero_stages(spec) if not layout_problems(with_strategy(spec, zero_stage=stage))]
    for micro_batch in micro_batches(spec):
        for stage in stages:
            for recompute in RECOMPUTE:
                yield formed(spec, stage, micro_batch, recompute)


def formed(spec: RunSpec, stage: int, micro_batch: int, recompute: Recompute) -> RunSpec:
    """`spec` with its layout decided."""
    parallelism = spec.parallelism.model_copy(update={"zero_stage": stage})
    every = spec.train.recompute_every if recompute != "none" else 1
    changes = {"micro_batch": micro_batch, "recompute": recompute, "recompute_every": every}
    train = spec.train.model_copy(update=changes)
    return spec.model_copy(update={"parallelism": parallelism, "train": train})


def words_of(strategy: ParallelSpec) -> list[str]:
    """The overrides that give a strategy."""
    words = [f"parallelism=zero{strategy.stage}" if strategy.stage else "parallelism=ddp"]
    kept = strategy.model_dump(exclude={"name", "zero_stage"}, exclude_defaults=True)
    return words + [f"parallelism.{name}={value}" for name, value in kept.items()]


def strategy_of(layout: ParallelLayout) -> ParallelSpec:
    """The strategy that a layout follows, as far as a search decides it."""
    return ParallelSpec(
        name="decided",
        zero_stage=layout.zero_stage,
        tensor=layout.tensor_parallel,
        pipeline=layout.pipeline_parallel,
        sequence=layout.context_parallel,
        expert=layout.expert_parallel,
        shard_group=layout.shard_group,
    )


def layout_of(spec: RunSpec) -> ParallelLayout:
    """The layout of a spec that `legal` gave."""
    layout = make_layout(spec)
    assert isinstance(layout, ParallelLayout)
    return layout


def micro_batches(spec: RunSpec) -> Iterator[int]:
    """Sequences of one rank in one pass that share out the global batch, in every stage."""
    most = max(1, _MOST_TOKENS // spec.train.sequence_length)
    for micro_batch in range(1, most + 1):
        train = spec.train.model_copy(update={"micro_batch": micro_batch})
        if not any(sharing_problems(spec.model_copy(update={"train": train}))):
            yield micro_batch
