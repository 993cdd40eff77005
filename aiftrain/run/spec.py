"""The RunSpec: everything a person decided about a run, validated, frozen, and digested."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import Field, model_validator

from aiftrain.run.access import AccessSpec
from aiftrain.run.base import Strict
from aiftrain.run.corpus import DataSpec
from aiftrain.run.guard import GuardSpec
from aiftrain.run.init_from import InitSpec
from aiftrain.run.machine import Factory, Hardware
from aiftrain.run.model import ModelSpec
from aiftrain.run.optimizer import OptimizerSpec
from aiftrain.run.policy import PolicySpec
from aiftrain.run.precision import LossScaleSpec
from aiftrain.run.precision import Precision as Precision
from aiftrain.run.storage import StorageSpec as StorageSpec
from aiftrain.run.timeline import Timeline, make_timeline
from aiftrain.run.training_stages import BatchWarmup, StageSpec
from aiftrain.run.training_stages import Recompute as Recompute

FORMAT = 1
MOST_PROFILED = 20  # steps: a trace of a rank on a GPU has some ten thousand events a step

# Of `train`: how long to go on, what to look at meanwhile, and what changes speed but no result worth the name.
_FREE_TO_CHANGE = {
    "steps",
    "tokens",
    "micro_batch",
    "recompute",
    "recompute_every",
    "attention",
    "compile",
    "deterministic",
    "loss_chunk",
    "loss_scale",
    "evaluate_every",
    "evaluate_batches",
    "evaluate_average",
    "measure_matmul",
    "hang_minutes",
    "preflight_seconds",
    "straggler_every",
}

Fp8 = Literal["none", "tensorwise", "rowwise", "rowwise_with_gw_hp"]
AttentionKernel = Literal["auto", "flash-attn", "varlen", "flex", "dense"]


class ParallelSpec(Strict):
    """The strategy that was asked for. ZeRO stage 0 is plain data parallelism; None: the planner decides."""

    name: str
    zero_stage: int | None = Field(0, ge=0, le=3)
    tensor: int = Field(1, ge=1)  # ranks that share out each matrix
    pipeline: int = Field(1, ge=1)  # ranks that share out the layers
    sequence: int = Field(1, ge=1)  # ranks that share out each sequence
    expert: int = Field(1, ge=1)  # of the data-parallel ranks, those that share out the experts
    # Of stage 3: how many ranks share out the states (None: all), how many together hold one more copy of the weights
    # for the backward pass, and where weights are while no layer needs them.
    shard_group: int | None = Field(None, ge=1)
    secondary_group: int = Field(1, ge=1)
    # Where weights, and where the optimizer's states are, if not on the device: in the CPUs' memory, or on a disk of
    # the node. The CPUs then do the optimizer's step. (Why weights do not go to disks: docs/verification.md.)
    offload_parameters: Literal["none", "cpu"] = "none"
    offload_optimizer: Literal["none", "cpu", "nvme"] = "none"
    nvme_path: str | None = None  # of `nvme`: a folder on a disk of each node; variables of the job as in $TMPDIR
    bucket_millions: float | None = Field(None, gt=0)  # elements at one time, in millions; None: derived

    @property
    def ranks_of_a_model(self) -> int:
        """How many ranks together work on the same sequences."""
        return self.tensor * self.pipeline * self.sequence

    @property
    def stage(self) -> int:
        """The ZeRO stage. The planner decides an `auto` before anything asks for it."""
        assert self.zero_stage is not None
        return self.zero_stage


class TrainSpec(Strict):
    """How long and how to train. Batches are counted in sequences. Give `steps` or `tokens`, not both."""

    steps: int | None = Field(None, ge=1)
    tokens: int | None = Field(None, ge=1)
    sequence_length: int = Field(ge=2)
    global_batch: int = Field(ge=1)
    micro_batch: int = Field(1, ge=1)  # sequences of one rank in one forward pass
    batch_warmup: BatchWarmup | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: 16 bits where the hardware is fast at them
    loss_scale: LossScaleSpec = LossScaleSpec()  # of fp16
    fp8: Fp8 = "none"  # products of layers in 8 bits, by this recipe of torchao; everything else stays bf16
    recompute: Recompute = "none"  # activations computed again in the backward pass: none, attention and SwiGLU, all
    recompute_every: int = Field(1, ge=1)  # in every n-th layer, from the first; the others keep everything
    attention: AttentionKernel = "auto"  # what computes attention; auto: the first of them that works, CPUs: dense
    compile: bool = False
    deterministic: bool = False
    loss_chunk: int = Field(1024, ge=1)  # tokens whose logits exist at one time
    evaluate_every: int = Field(0, ge=0)  # steps; 0: only at the end
    evaluate_batches: int = Field(4, ge=0)  # global batches, as above, of each source; 0: never evaluate
    evaluate_average: bool = False  # evaluate the averaged weights, too (optimizer.ema_decay)
    measure_matmul: bool = True  # measure this machine's matmul rate at start, for the FLOP share
    hang_minutes: float = Field(30.0, gt=0)  # without a step, after which a rank takes the run for hung and ends it
    preflight_seconds: float = Field(60.0, ge=0)  # that the checks at the start may take, per 1,000 ranks; 0: none
    straggler_every: int = Field(50, ge=0)  # steps between looks for slow ranks; 0: never

    @model_validator(mode="after")
    def _one_length(self) -> TrainSpec:
        if (self.steps is None) == (self.tokens is None):
            raise ValueError("give either train.steps or train.tokens")
        return self

    @model_validator(mode="after")
    def _interval_of_something(self) -> TrainSpec:
        if self.recompute_every > 1 and self.recompute == "none":
            raise ValueError(f"recompute_every {self.recompute_every} needs recompute=selective or recompute=full")
        return self


class TrackingSpec(Strict):
    """metrics.jsonl is always written; wandb runs beside it, offline unless `mode` says otherwise."""

    name: str
    wandb: Literal["off", "offline", "online"] = "off"
    project: str = "aiftrain"
    base_url: str | None = None  # the wandb server that `online` may talk to; there is no default
    log_every: int = Field(1, ge=1)  # steps

    @model_validator(mode="after")
    def _online_is_named(self) -> TrackingSpec:
        if self.wandb == "online" and not self.base_url:
            raise ValueError(
                "tracking.wandb=online sends data away: name the server with tracking.base_url=https://..."
            )
        return self


class LauncherSpec(Strict):
    """What starts the ranks, and how many a node gets (None: one a device)."""

    name: Literal["local", "slurm", "pbs", "mpi", "deepspeed"]
    ranks_per_node: int | None = Field(None, ge=1)
    partition: str | None = None
    qos: str | None = None  # the quality of service; None: the one that the partition names
    style: Literal["task-per-device", "task-per-node"] = "task-per-device"  # of srun; a node's one task is torchrun
    python: str | None = None  # the ranks' Python; None: this one or, in a container, its python3
    env_archive: str | None = None  # what `env pack` made: unpacked on each node or, a .sqsh, mounted in a container
    hostfile: str | None = None  # of mpi and deepspeed: the nodes, one a line; None: this machine, or the allocation's
    mpiexec: str = "mpiexec"  # of mpi: what starts the ranks, in shell words, such as `srun --mpi=pmix`
    confirm_above: float | None = Field(100.0, ge=0)  # node-hours of one job that are not submitted without a yes
    chain: Literal["auto", "requeue", "follow-up", "none"] = "auto"  # how a job that ends early goes on
    max_restarts: int = Field(3, ge=0)  # of a job without a new step, after which it starts no more; 0: no limit
    bad_nodes: str | None = None  # the team's file of nodes to keep away from; None: runs/bad-nodes/FACTORY.txt
    extra: tuple[str, ...] = ()  # options for the scheduler, verbatim

    @property
    def is_queued(self) -> bool:
        """Whether a scheduler starts the job, and may start it again. The others start ranks here and now."""
        return self.name in ("slurm", "pbs")


class PlanSpec(Strict):
    """What a person may know of a site and the planner cannot; None: a documented default, or left out and said so."""

    queue_hours_per_job: float | None = Field(None, ge=0)
    failures_per_node_day: float | None = Field(None, ge=0)  # that end a job
    write_gb_per_s: float | None = Field(None, gt=0)  # of all ranks together, to where checkpoints go
    grid_g_per_kwh: float | None = Field(None, ge=0)  # CO2e of the electricity, where better known than by country


class BenchSpec(Strict):
    """What `bench` measures: for how long, and which short training steps."""

    seconds: float = Field(120.0, gt=0)  # in all, about
    layers: int = Field(4, ge=1)  # of the recipe's model, in the training steps
    strategies: tuple[str, ...] | None = None  # of conf/parallelism; None: all


class RunSpec(Strict):
    """One run. `digest` names what decides its numbers; where it runs and what watches it are left out.

    So is the guard: who mends a run in trouble may set it otherwise and go on.
    """

    format: int = FORMAT
    recipe: str
    factory: Factory
    hardware: Hardware
    parallelism: ParallelSpec
    model: ModelSpec
    init_from: InitSpec | None = None  # the weights to begin with; None: random ones
    data: DataSpec
    optimizer: OptimizerSpec
    train: TrainSpec
    stages: dict[str, StageSpec] = {}  # what changes on the way, in order
    storage: StorageSpec
    tracking: TrackingSpec
    launcher: LauncherSpec
    access: AccessSpec = AccessSpec(name="none")
    policy: PolicySpec = PolicySpec()
    plan: PlanSpec = PlanSpec()
    bench: BenchSpec = BenchSpec()
    purpose: Literal["train", "bench"] = "train"  # what the ranks do; the verb decides
    guard: GuardSpec = GuardSpec()
    nodes: int = Field(1, ge=1)
    time: str | None = None
    account: str | None = None
    seed: int = Field(0, ge=0)
    profile: bool = False  # record steps with torch's profiler, and tell where their time goes
    profile_steps: tuple[int, int] = (4, 6)  # the first and last, counted from 1
    profile_ranks: Literal["first", "all"] = "first"  # whose traces are kept; all are compared
    run_dir: str | None = None
    founded_as: str | None = None  # filled in: the lineage of the first start, where the future was changed since

    @model_validator(mode="after")
    def _positions_suffice(self) -> RunSpec:
        positions, length = self.model.max_positions, self.train.sequence_length
        if positions is not None and positions < length:
            raise ValueError(f"train.sequence_length {length} is more than the {positions} of model.max_positions")
        return self

    @model_validator(mode="after")
    def _profiled_steps_come(self) -> RunSpec:
        first, last = self.profile_steps
        if self.profile and not 1 <= first <= last <= min(self.timeline.total_steps, first + MOST_PROFILED - 1):
            raise ValueError(
                f"profile_steps [{first}, {last}] are no steps of a run of {self.timeline.total_steps}: "
                f"the first and the last of at most {MOST_PROFILED}, such as profile_steps=[1,2]"
            )
        return self

    @model_validator(mode="after")
    def _average_exists(self) -> RunSpec:
        if self.train.evaluate_average and self.optimizer.ema_decay is None:
            raise ValueError("train.evaluate_average: there is no average without optimizer.ema_decay, such as 0.9999")
        return self

    @property
    def timeline(self) -> Timeline:
        """What holds at each step, and how many there are."""
        return make_timeline(self)

    @property
    def digest(self) -> str:
        """12 hexadecimal digits of what decides the numbers, the length, and the strategy: each has its own folder."""
        strategy = self.parallelism.model_dump(mode="json", exclude={"nvme_path"})
        return _digest(self.identity() | {"steps": self.timeline.total_steps, "parallelism": strategy})

    @property
    def lineage(self) -> str:
        """12 hexadecimal digits of the identity: the same for a run that goes on longer, or in another layout.

        A run that has changed its future keeps that of its first start.
        """
        return self.founded_as or _digest(self.identity())

    def identity(self) -> dict[str, object]:
        """What decides the numbers, as JSON values by section. What of it may change on the way: aiftrain.run.identity.

        What a run does not use is left out, so that what was made before it existed still belongs to its run.
        """
        data = self.data.model_dump(mode="json", exclude={"cache_dir", "workers", "unit", "goldfish"})
        if self.data.goldfish:
            data |= {"goldfish": self.data.goldfish.model_dump(mode="json")}
        unit = self.data.unit or self.timeline.common_length
        train = self.train.model_dump(mode="json", exclude=_FREE_TO_CHANGE, exclude_none=True)
        stages = {
            name: stage.model_dump(mode="json", exclude={"micro_batch", "recompute"}, exclude_none=True)
            for name, stage in self.stages.items()
        }
        return {
            "model": self.model.model_dump(mode="json", exclude={"source", "published_parameters"}),
            "data": data if unit == self.train.sequence_length else data | {"unit": unit},
            "optimizer": self.optimizer.model_dump(mode="json", exclude_none=True),
            "train": train,
            "seed": self.seed,
            **({"stages": stages} if stages else {}),
            **({"init_from": self.init_from.identity()} if self.init_from else {}),
        }

    @property
    def run_folder(self) -> str:
        return self.run_dir or f"runs/{self.recipe}/{self.digest}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
