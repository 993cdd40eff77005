"""From a run folder to a trainer that is ready to go: everything that a rank does before its first step."""

from __future__ import annotations

from typing import Any

import torch

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.data.batches import Batches
from aiftrain.data.corpus import PreparedCorpus
from aiftrain.errors import MachineError, UserError
from aiftrain.run import residency
from aiftrain.run.attempts import refuse_loop
from aiftrain.run.env_lock import check_software
from aiftrain.run.folder import RunFolder
from aiftrain.run.layout import Execution, ParallelLayout
from aiftrain.run.lock import HANDOVER, PATIENCE, RunLock
from aiftrain.run.offload import disk_bytes
from aiftrain.run.rank import Rank
from aiftrain.run.spec import RunSpec
from aiftrain.train import stragglers
from aiftrain.train.affinity import bind_near_device
from aiftrain.train.briefing import Briefing
from aiftrain.train.egress import Egress
from aiftrain.train.engine import Engine
from aiftrain.train.guard import Guard
from aiftrain.train.loop import Trainer
from aiftrain.train.measure import matmul_flops
from aiftrain.train.mesh import Mesh
from aiftrain.train.pipeline.engine import PipelinedEngine
from aiftrain.train.preflight.check import Preflight
from aiftrain.train.process import RankProcess, StopRequest
from aiftrain.train.profile.recorder import StepProfiler
from aiftrain.train.randomness import seed_everything
from aiftrain.train.rendezvous import agree, join, meet
from aiftrain.train.saving import Saver
from aiftrain.train.schedule import Schedule
from aiftrain.train.shipping import shipping
from aiftrain.train.snapshot import Checkpoints, TrainState
from aiftrain.train.swapping import on_this_node
from aiftrain.train.together import together
from aiftrain.train.tracking import Tracker
from aiftrain.train.watchdog import Watchdog


def start(folder: RunFolder, attempt: int, rank: Rank, stop: StopRequest) -> tuple[Trainer, TrainState]:
    """Meet the other ranks, build the engine, resume. Gives the trainer and where it begins."""
    lock = RunLock(folder.lock)
    briefing, store = meet(rank, lambda: begin(folder, attempt, rank, lock))
    spec, execution, corpus = briefing.spec, briefing.execution, briefing.corpus
    assert corpus is not None, "a run that trains has data"
    egress = Egress(spec, folder, attempt, rank)
    if rank.local_rank == 0 and rank.rank > 0:
        check_software(folder, briefing.env_lock, attempt, rank)
    preflight = Preflight(spec, execution.layout, folder, attempt, rank)
    cores = bind_near_device(rank, spec.hardware)
    preflight.look(store)
    egress.watch(store)
    device = join(rank, spec.hardware, store)
    seed_everything(spec.seed, rank.rank, spec.train.deterministic)
    tracker = Tracker(folder, spec, rank, attempt)
    own = matmul_flops(device, execution.precision) if spec.train.measure_matmul else None
    preflight.measure(device, own)
    # Of all ranks together, all at once: ranks of one node share its memory and its power.
    measured = None if own is None else agree([own], device)[0]
    tracker.event(
        "start",
        world_size=rank.world_size,
        precision=execution.precision,
        matmul_tflops=measured and measured / 1e12,
        parameters=spec.model.parameters,
        bound_to_cores=cores,
    )
    mesh = Mesh.of(execution.layout, rank.rank)
    engine = new_engine(spec, execution, briefing.deepspeed, device, mesh)
    tracker.event("attention", kernel=engine.attention.kernel.name, passed_over=engine.attention.passed_over)
    catalog = Catalog.of_run(folder, spec)
    checkpoints = Checkpoints(spec, catalog, rank, tracker)
    watchdog = Watchdog(spec.train.hang_minutes * 60, RankProcess(folder, attempt, rank), tracker)
    trainer = Trainer(
        spec=spec,
        timeline=spec.timeline,
        schedule=Schedule(spec),
        layout=execution.layout,
        rank=rank,
        device=device,
        engine=engine,
        batches=_batches(spec, corpus),
        saver=Saver(spec, execution.layout, corpus, catalog, rank, tracker, watchdog.alive),
        guard=Guard(spec.guard, engine, checkpoints, tracker, device),
        tracker=tracker,
        stop=stop,
        matmul_flops=measured,
        lock=lock,
        profiler=StepProfiler(spec, folder, rank.rank, device, tracker),
        stragglers=stragglers.Watch(
            spec.train.straggler_every, preflight.hosts, _stages(execution.layout), device, tracker
        ),
        shipping=shipping(folder, spec, rank, tracker),
        watchdog=watchdog,
    )
    return trainer, checkpoints.resume(engine)


def new_engine(spec: RunSpec, execution: Execution, config: dict[str, Any], device: torch.device, mesh: Mesh) -> Engine:
    """The engine that the layout asks for, as `Engine` is made."""
    kind = PipelinedEngine if mesh.pipeline.size > 1 else Engine
    if spec.parallelism.offload_optimizer == "nvme":
        needed = disk_bytes(spec, execution.layout)
        config = together(lambda: on_this_node(config, needed))[torch.distributed.get_rank()]
    return kind(spec, execution, config, device, mesh)


def begin(folder: RunFolder, attempt: int, rank: Rank, lock: RunLock) -> Briefing:
    """What rank 0 does for all: look into the run folder, and make sure that nobody else is at work there."""
    briefing = Briefing.read(folder)
    residency.check(briefing.spec, folder.path)
    check_software(folder, briefing.env_lock, attempt, rank)
    _take(lock, briefing.spec)
    refuse_loop(folder, briefing.spec.launcher, attempt)
    return briefing


def _stages(layout: ParallelLayout) -> list[int]:
    """Each rank's stage of the pipeline, in order of rank."""
    return [layout.place(rank).pipeline for rank in range(layout.world_size)]


def _take(lock: RunLock, spec: RunSpec) -> None:
    """The run's lock. In a job it may be held by ranks that are lost but not dead, and a later start may have it."""
    if not spec.launcher.is_queued:
        lock.acquire(PATIENCE)
        return
    try:
        lock.acquire(HANDOVER)
    except UserError as error:
        raise MachineError(str(error)) from error


def _batches(spec: RunSpec, corpus: PreparedCorpus) -> Batches:
    data = spec.data
    return Batches(
        corpus,
        spec.timeline,
        vocab_size=spec.model.vocab_size,
        seed=spec.seed,
        unit=data.unit,
        document_mask=data.document_mask,
        goldfish=data.goldfish,
    )
