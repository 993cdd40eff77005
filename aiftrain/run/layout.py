"""From a strategy that was asked for to the layout that follows: ranks, micro-batches, accumulation."""

from __future__ import annotations

from typing import NamedTuple

from aiftrain.errors import Problem
from aiftrain.run.base import Strict
from aiftrain.run.spec import ParallelSpec, Precision, Recompute, RunSpec
from aiftrain.run.stages import stage_bounds


class Place(NamedTuple):
    """Where a rank stands on each axis. Neighbours on the first axis have neighbouring ranks, on the last the remotest:
    tensor parallelism talks most, inside a node; a pipeline least."""

    tensor: int
    sequence: int
    data: int
    pipeline: int


class ParallelLayout(Strict):
    """Who does what. `global_batch == data_parallel * micro_batch * accumulation`, in sequences.

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
    strategy, micro = spec.parallelism, spec.train.micro_batch
    world = spec.nodes * ranks_per_node(spec)
    one_model = strategy.ranks_of_a_model
    if world % one_model:
        return _cannot_divide(strategy, world, one_model)
    sharers = world // one_model
    per_pass = sharers * micro
    if spec.train.global_batch % per_pass:
        return Problem(
            "train.global_batch",
            f"{spec.train.global_batch} sequences cannot be shared by {sharers} ranks of {micro} sequences each",
            _batch_advice(spec.train.global_batch, sharers, micro),
        )
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
        accumulation=spec.train.global_batch // per_pass,
        recompute=spec.train.recompute,
        recompute_every=spec.train.recompute_every,
    )


def _cannot_divide(strategy: ParallelSpec, world: int, one_model: int) -> Problem:
    """The axes multiply to more ranks than there are, or to no part of them."""
    axes = {"tensor": strategy.tensor, "pipeline": strategy.pipeline, "sequence": strategy.sequence}
    product = " x ".join(f"{name} {size}" for name, size in axes.items() if size > 1)
    found = f"{product} needs {one_model} ranks for one model, and {world} ranks are no multiple of that"
    return Problem("parallelism", found, f"nodes and parallelism.* such that {one_model} divides the number of ranks")


def _batch_advice(batch: int, world: int, micro: int) -> str:
    per_pass = world * micro
    below, above = batch // per_pass * per_pass, (batch // per_pass + 1) * per_pass
    batches = f"{below} or {above}" if below else str(above)
    fitting = [m for m in range(1, micro) if batch % (world * m) == 0]
    smaller = f", or train.micro_batch={fitting[-1]}" if fitting else ""
    return f"train.global_batch={batches} would fit{smaller}"


class Execution(Strict):
    """What a rank needs to know of the plan."""

    layout: ParallelLayout
    precision: Precision
