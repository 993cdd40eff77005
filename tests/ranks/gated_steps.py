"""A rank that takes four steps, the first and the third behind a closed gate, and writes down what that did."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from aiftrain.data.batches import Batch
from aiftrain.run.folder import RunFolder
from aiftrain.run.rank import read_rank
from aiftrain.run.spec import RunSpec
from aiftrain.train.briefing import Briefing
from aiftrain.train.engine import Engine
from aiftrain.train.mesh import Mesh
from aiftrain.train.process import RankProcess
from aiftrain.train.rendezvous import join, meet, part

CLOSED = (0, 2)


def main(arguments: list[str]) -> int:
    """Leave gated-RANK.json in the run folder: a line for each step."""
    folder, rank = RunFolder(arguments[0]), read_rank(os.environ)
    RankProcess(folder, int(os.environ["AIFTRAIN_ATTEMPT"]), rank).begin()
    briefing, store = meet(rank, lambda: Briefing.read(folder))
    spec, execution = briefing.spec, briefing.execution
    device = join(rank, spec.hardware, store)
    engine = Engine(spec, execution, briefing.deepspeed, device, Mesh.of(execution.layout, rank.rank))
    steps = list(_steps(engine, spec, execution.layout.accumulation))
    folder.write_json(folder.path / f"gated-{rank.rank}.json", steps)
    part()
    return 0


def _steps(engine: Engine, spec: RunSpec, accumulation: int) -> Iterator[dict[str, Any]]:
    asked: list[float] = []
    for step in range(4):
        before = _state(engine)

        def ask(step: int = step) -> bool:
            asked.append(engine.grad_norm)
            return step not in CLOSED

        engine.gate.ask = ask
        batches = [_batch(spec, 10 * step + number) for number in range(accumulation)]
        _, norm = engine.step(batches, 1e-3, sum(batch.valid_tokens for batch in batches))
        yield {
            "asked": len(asked),
            "norms_agree": asked[-1] == norm > 0,
            "let_through": engine.gate.let_through,
            "changed": any(not np.array_equal(now, then) for now, then in zip(_state(engine), before, strict=True)),
            "optimizer_steps": engine.optimizer_steps,
        }


def _state(engine: Engine) -> list[Any]:
    return [view.detach().numpy().copy() for fragment in engine.fragments() for view in fragment.views.values()]


def _batch(spec: RunSpec, seed: int) -> Batch:
    shape = (spec.train.micro_batch, spec.train.sequence_length)
    tokens = np.random.default_rng(seed).integers(0, spec.model.vocab_size, shape)
    return Batch(tokens, tokens, np.zeros(shape, np.int32), np.zeros(shape[0], np.int64))
