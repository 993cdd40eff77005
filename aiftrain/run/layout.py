"""From a strategy that was asked for to the layout that follows: ranks, micro-batches, accumulation."""

from __future__ import annotations

from aiftrain.errors import Problem
from aiftrain.run.base import Strict
from aiftrain.run.spec import Precision, Recompute, RunSpec


class ParallelLayout(Strict):
    """Who does what. `global_batch == data_parallel * micro_batch * accumulation`, in sequences.

    `world_size == data_parallel * tensor_parallel * pipeline_parallel * context_parallel`; experts are shared
    out inside the data-parallel ranks. `shard_group` is how many ranks share out the states (hybrid sharding,
    MiCS); None: all data-parallel ones.
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
    virtual_stages: int = 1  # chunks of layers that each pipeline rank holds (interleaved schedule)
    context_parallel: int = 1  # ranks that share out one sequence (ring attention, Ulysses)
    expert_parallel: int = 1
    shard_group: int | None = None
    recompute: Recompute = "none"

    @property
    def global_batch(self) -> int:
        return self.data_parallel * self.micro_batch * self.accumulation


def ranks_per_node(spec: RunSpec) -> int:
    """Ranks on one node: what the launcher was told, or one a device."""
    return spec.launcher.ranks_per_node or spec.hardware.devices_per_node


def make_layout(spec: RunSpec) -> ParallelLayout | Problem:
    """The layout of a run, or why there is none."""
    world = spec.nodes * ranks_per_node(spec)
    micro = spec.train.micro_batch
    per_pass = world * micro
    if spec.train.global_batch % per_pass:
        return Problem(
            "train.global_batch",
            f"{spec.train.global_batch} sequences cannot be shared by {world} ranks of {micro} sequences each",
            _batch_advice(spec.train.global_batch, world, micro),
        )
    return ParallelLayout(
        nodes=spec.nodes,
        ranks_per_node=ranks_per_node(spec),
        world_size=world,
        data_parallel=world,
        zero_stage=spec.parallelism.stage,
        micro_batch=micro,
        accumulation=spec.train.global_batch // per_pass,
        recompute=spec.train.recompute,
    )


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
