"""From a strategy that was asked for to the layout that follows: ranks, micro-batches, accumulation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from aiftrain.errors import Problem
from aiftrain.run.base import Strict
from aiftrain.run.spec import ParallelSpec, Precision, Recompute, RunSpec
from aiftrain.run.stages import stage_bounds
from aiftrain.run.timeline import Phase


class Place(NamedTuple):
    """Where a rank stands on each axis. Neighbours on the first axis have neighbouring ranks, on the last the remotest:
    tensor parallelism talks most, inside a node; a pipeline least."""

    tensor: int
    sequence: int
    data: int
    pipeline: int


class ParallelLayout(Strict):
    """Who does what. `global_batch == data_parallel * micro_batch * accumulation`, in sequences, in the first stage.

    `world_size == data_parallel * tensor_parallel * pipeline_parallel * context_parallel`; experts are shared
    out inside the data-parallel ranks. `shard_group` is how many ranks share out the states (hybrid sharding,
    MiCS); None: all data-parallel ones. `stages`: of a pipeline, the first layer of each stage, and at the end how
    many there are; empty: in equal parts.
    """

    nodes: int
    ranks_per_node: int
    world_size: int
    data_parallel: int
    zero_stage: int
    micro_batch: int
    accumulation: int
    tensor_parallel: int = 1
    sequence_parallel: bool = False  # Megatron's: norms and residuals shared out over the tensor-parallel ranks
    pipeline_parallel: int = 1
    stages: tuple[int, ...] = ()
    virtual_stages: int = 1  # chunks of layers that each pipeline rank holds (interleaved schedule)
    context_parallel: int = 1  # ranks that share out one sequence (ring attention, Ulysses)
    expert_parallel: int = 1
    shard_group: int | None = None
    recompute: Recompute = "none"
    recompute_every: int = 1  # layers, of which the first is computed again

    @property
    def global_batch(self) -> int:
        return self.data_parallel * self.micro_batch * self.accumulation

    def during(self, phase: Phase) -> ParallelLayout:
        """The layout with the micro-batches and the recomputation of a phase of the run."""
        accumulation = phase.global_batch // (self.data_parallel * phase.micro_batch)
        changes = {"micro_batch": phase.micro_batch, "accumulation": accumulation, "recompute": phase.recompute}
        return self.model_copy(update=changes)

    def recomputed_share(self, layers: range) -> float:
        """The share of a model's `layers`, counted from its first as 0, that is computed again."""
        if self.recompute == "none":
            return 0.0
        return sum(layer % self.recompute_every == 0 for layer in layers) / len(layers)

    @property
    def sharers(self) -> int:
        """Ranks that DeepSpeed takes for data-parallel: those that share out a batch, by sequences or inside them."""
        return self.data_parallel * self.context_parallel

    def layers(self, stage: int, of_all: int) -> range:
        """Which of a model's layers, counted from 0, a stage of the pipeline holds."""
        bounds = self.stages or [
            of_all * number // self.pipeline_parallel for number in range(self.pipeline_parallel + 1)
        ]
        return range(bounds[stage], bounds[stage + 1])

    def place(self, rank: int) -> Place:
        """Where `rank` stands."""
        rest, tensor = divmod(rank, self.tensor_parallel)
        rest, sequence = divmod(rest, self.context_parallel)
        pipeline, data = divmod(rest, self.data_parallel)
        return Place(tensor, sequence, data, pipeline)


def ranks_per_node(spec: RunSpec) -> int:
    """Ranks on one node: what the launcher was told, or one a device."""
    return spec.launcher.ranks_per_node or spec.hardware.devices_per_node


def make_layout(spec: RunSpec) -> ParallelLayout | Problem:
    """The layout of a run, or why there is none."""
    for problem in sharing_problems(spec):
        return problem
    strategy, micro = spec.parallelism, spec.train.micro_batch
    world = spec.nodes * ranks_per_node(spec)
    sharers = world // strategy.ranks_of_a_model
    return ParallelLayout(
        nodes=spec.nodes,
        ranks_per_node=ranks_per_node(spec),
        world_size=world,
        data_parallel=sharers,
        tensor_parallel=strategy.tensor,
        pipeline_parallel=strategy.pipeline,
        stages=stage_bounds(spec.model, strategy.pipeline, spec.train.sequence_length),
        context_parallel=strategy.sequence,
        expert_parallel=strategy.expert,
        shard_group=strategy.shard_group,
        zero_stage=strategy.stage,
        micro_batch=micro,
        accumulation=spec.train.global_batch // (sharers * micro),
        recompute=spec.train.recompute,
        recompute_every=spec.train.recompute_every,
    )


def sharing_problems(spec: RunSpec) -> Iterator[Problem]:
    """The global batches that the ranks cannot share out, of every stage and of the batch's warm-up."""
    strategy, train = spec.parallelism, spec.train
    world = spec.nodes * ranks_per_node(spec)
    if world % strategy.ranks_of_a_model:
        yield _cannot_divide(strategy, world)
        return
    sharers = world // strategy.ranks_of_a_model
    if train.global_batch % (sharers * train.micro_batch):
        yield _unshared("train", train.global_batch, sharers, train.micro_batch)
    if warmup := train.batch_warmup:
        per_pass = sharers * train.micro_batch
        sizes = {"start": warmup.start, "increment": warmup.increment}
        yield from (_unshared_warmup(name, size, per_pass) for name, size in sizes.items() if size % per_pass)
    for phase in spec.timeline.stages():
        if phase.stage and phase.global_batch % (sharers * phase.micro_batch):
            yield _unshared(f"stages.{phase.stage}", phase.global_batch, sharers, phase.micro_batch)


def _cannot_divide(strategy: ParallelSpec, world: int) -> Problem:
    """The axes multiply to more ranks than there are, or to no part of them."""
    one_model = strategy.ranks_of_a_model
    axes = {"tensor": strategy.tensor, "pipeline": strategy.pipeline, "sequence": strategy.sequence}
    product = " x ".join(f"{name} {size}" for name, size in axes.items() if size > 1)
    found = f"{product} needs {one_model} ranks for one model, and {world} ranks are no multiple of that"
    return Problem("parallelism", found, f"nodes and parallelism.* such that {one_model} divides the number of ranks")


def _unshared(where: str, batch: int, world: int, micro: int) -> Problem:
    found = f"{batch} sequences cannot be shared by {world} ranks of {micro} sequences each"
    return Problem(f"{where}.global_batch", found, _batch_advice(where, batch, world, micro))


def _unshared_warmup(name: str, size: int, per_pass: int) -> Problem:
    found = f"{size} sequences are no multiple of the {per_pass} that all ranks take in one pass"
    fits = " or ".join(f"{multiple}" for multiple in _multiples(size, per_pass))
    return Problem(f"train.batch_warmup.{name}", found, f"train.batch_warmup.{name}={fits} would fit")


def _multiples(batch: int, per_pass: int) -> list[int]:
    """The next smaller and the next larger multiple."""
    below = batch // per_pass * per_pass
    return [multiple for multiple in (below, below + per_pass) if multiple]


def _batch_advice(where: str, batch: int, world: int, micro: int) -> str:
    batches = " or ".join(map(str, _multiples(batch, world * micro)))
    fitting = [m for m in range(1, micro) if batch % (world * m) == 0]
    smaller = f", or {where}.micro_batch={fitting[-1]}" if fitting else ""
    return f"{where}.global_batch={batches} would fit{smaller}"


class Execution(Strict):
    """What a rank needs to know of the plan."""

    layout: ParallelLayout
    precision: Precision
