"""A rank of a pipeline that takes one step and writes down how many bytes it sent to other stages: sent-RANK.json."""

from __future__ import annotations

import os

import numpy as np

from aiftrain.data.batches import Batch
from aiftrain.run.folder import RunFolder
from aiftrain.run.rank import read_rank
from aiftrain.train.briefing import Briefing
from aiftrain.train.mesh import Mesh
from aiftrain.train.pipeline.engine import PipelinedEngine
from aiftrain.train.process import RankProcess
from aiftrain.train.rendezvous import join, meet, part
from aiftrain.train.traffic import Traffic


def main(arguments: list[str]) -> int:
    folder = RunFolder(arguments[0])
    rank = read_rank(os.environ)
    RankProcess(folder, int(os.environ["AIFTRAIN_ATTEMPT"]), rank).begin()
    briefing, store = meet(rank, lambda: Briefing.read(folder))
    spec, execution = briefing.spec, briefing.execution
    device = join(rank, spec.hardware, store)
    mesh = Mesh.of(execution.layout, rank.rank)
    engine = PipelinedEngine(spec, execution, briefing.deepspeed, device, mesh)
    tokens = np.ones((execution.layout.micro_batch, spec.train.sequence_length), dtype=np.int64)
    batch = Batch(tokens, tokens, np.zeros_like(tokens, dtype=np.int32), np.zeros(len(tokens), dtype=np.int64))
    with Traffic() as traffic:
        engine.step([batch] * execution.layout.accumulation, lr=1e-3, tokens=float(tokens.size))
    folder.write_json(folder.path / f"sent-{rank.rank}.json", traffic.bytes["send"])
    part()
    return 0
