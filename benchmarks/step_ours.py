"""Our contestants: the engine under each ZeRO stage, and our model in a loop of torch alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from aiftrain.data.batches import Batch
from aiftrain.run.corpus import DataSpec
from aiftrain.run.layout import Execution, ParallelLayout, make_layout
from aiftrain.run.machine import Factory, Hardware
from aiftrain.run.model import ModelSpec
from aiftrain.run.optimizer import OptimizerSpec
from aiftrain.run.rank import Rank
from aiftrain.run.spec import (
    LauncherSpec,
    ParallelSpec,
    RunSpec,
    StorageSpec,
    TrackingSpec,
    TrainSpec,
)
from benchmarks.step_task import BATCH, BETAS, LENGTH, LR, MAX_NORM, WEIGHT_DECAY, Steps, tokens_of

if TYPE_CHECKING:
    from aiftrain.train.engine import Engine


def engine_steps(model: ModelSpec, stage: int, compiled: bool) -> Steps:
    """Our engine under ZeRO `stage`, on batches with three documents a row."""
    world = int(os.environ["WORLD_SIZE"])
    engine, batches = new_engine(run_spec(model, stage, compiled, world)), our_batches()

    def run(count: int) -> None:
        for _ in range(count):
            batch = next(batches)
            engine.step([batch], LR, batch.valid_tokens * world)

    return run


def new_engine(spec: RunSpec) -> Engine:
    """Of this rank of those that torchrun's variables name."""
    from aiftrain.plan.engine_config import deepspeed_config
    from aiftrain.train.engine import Engine
    from aiftrain.train.mesh import Mesh
    from aiftrain.train.rendezvous import connect, join

    number, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    rank = Rank(number, world, number, world)
    layout = make_layout(spec)
    assert isinstance(layout, ParallelLayout)
    device = join(rank, spec.hardware, connect(rank))
    execution = Execution(layout=layout, precision="fp32")
    mesh = Mesh.of(layout, rank.rank)
    return Engine(spec, execution, deepspeed_config(spec, layout, "fp32"), device, mesh)


def bare_steps(model: ModelSpec) -> Steps:
    """Our model with the same optimizer and clipping, and no DeepSpeed: what the engine costs beside it."""
    from aiftrain.train.model import Decoder, initialise

    decoder = Decoder(model, sequence_length=LENGTH)
    initialise(decoder, seed=0)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=LR, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    batches = our_batches()

    def run(count: int) -> None:
        for _ in range(count):
            batch = next(batches)
            tokens, targets, documents = map(torch.from_numpy, (batch.tokens, batch.targets, batch.documents))
            objective, _ = decoder(tokens, targets, documents)
            (objective / batch.valid_tokens).backward()
            torch.nn.utils.clip_grad_norm_(decoder.parameters(), MAX_NORM)
            optimizer.step()
            optimizer.zero_grad()

    return run


def our_batches() -> Iterator[Batch]:
    for step in range(sys.maxsize):
        tokens = tokens_of(step)
        documents = np.broadcast_to(np.arange(LENGTH, dtype=np.int32) * 3 // LENGTH, (BATCH, LENGTH)).copy()
        yield Batch(tokens[:, :-1].copy(), tokens[:, 1:].copy(), documents, np.zeros(BATCH, dtype=np.int64))


def run_spec(model: ModelSpec, stage: int, compiled: bool, world: int) -> RunSpec:
    return RunSpec(
        recipe="benchmark",
        factory=Factory(name="local", title="here"),
        hardware=Hardware(name="cpu", title="CPU", kind="cpu"),
        parallelism=ParallelSpec(name=f"zero{stage}", zero_stage=stage),
        model=model,
        data=DataSpec.model_validate({"name": "none", "sources": {"none": {"kind": "python-docs"}}}),
        optimizer=OptimizerSpec(name="adamw", lr=LR, betas=BETAS, weight_decay=WEIGHT_DECAY, grad_clip=MAX_NORM),
        train=TrainSpec(
            steps=1, sequence_length=LENGTH, global_batch=BATCH * world, micro_batch=BATCH, compile=compiled
        ),
        storage=StorageSpec(name="local", save_every=1),
        tracking=TrackingSpec(name="none"),
        launcher=LauncherSpec(name="local", ranks_per_node=world),
    )
