"""A rank that takes three steps and writes down what it handed to collectives in the last: counted-RANK.json.

In the first two DeepSpeed's stage 3 learns, and compares, in which order the weights are used.
"""

from __future__ import annotations

import os

import numpy as np

from aiftrain.data.batches import Batch
from aiftrain.run.folder import RunFolder
from aiftrain.run.rank import read_rank
from aiftrain.train.briefing import Briefing
from aiftrain.train.engine import Engine
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
    spec, layout = briefing.spec, briefing.execution.layout
    device = join(rank, spec.hardware, store)
    kind = PipelinedEngine if layout.pipeline_parallel > 1 else Engine
    engine = kind(spec, briefing.execution, briefing.deepspeed, device, Mesh.of(layout, rank.rank))
    shape = (layout.micro_batch, spec.train.sequence_length)
    tokens = np.arange(layout.micro_batch * spec.train.sequence_length, dtype=np.int64).reshape(shape) % 100
    batch = Batch(tokens, tokens, np.zeros_like(tokens, dtype=np.int32), np.zeros(len(tokens), dtype=np.int64))
    step = [batch] * layout.accumulation
    for _ in range(2):
        engine.step(step, lr=1e-3, tokens=float(tokens.size))
    with Traffic() as traffic:
        engine.step(step, lr=1e-3, tokens=float(tokens.size))
    folder.write_json(folder.path / f"counted-{rank.rank}.json", dict(traffic.bytes))
    part()
    return 0
