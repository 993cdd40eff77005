"""A program: one rank of a large job builds its engine and takes a step in which tensors have shapes and no values.

    python -m tests.train.shapes_only RANK OVERRIDE...

torch's fake process group answers for all other ranks, its fake tensors hold nothing, and DeepSpeed's own code runs
between them. Prints JSON: how many elements of which parameters the rank's optimizer has, and the bytes that it handed
to collectives in the step.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import deepspeed
import numpy as np
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

from aiftrain.data.batches import Batch
from aiftrain.plan.engine_config import deepspeed_config
from aiftrain.plan.spec import resolve
from aiftrain.run.layout import Execution, ParallelLayout, make_layout
from aiftrain.run.spec import RunSpec
from aiftrain.train import engine as engines
from aiftrain.train.mesh import Mesh
from aiftrain.train.pipeline.engine import PipelinedEngine
from aiftrain.train.traffic import Traffic

_aten = torch.ops.aten


class Shapes(FakeTensorMode):
    """Fake tensors, of which a program may ask a number all the same: it is 0."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _aten._local_scalar_dense.default:
            return 0.0
        return super().__torch_dispatch__(func, types, args, kwargs or {})


def main(rank: int, overrides: list[str]) -> dict[str, Any]:
    spec = resolve(overrides)
    layout = make_layout(spec)
    assert isinstance(layout, ParallelLayout), layout
    join(rank, layout.world_size)
    mesh = Mesh.of(layout, rank)
    execution = Execution(layout=layout, precision="fp32")
    kind = PipelinedEngine if mesh.pipeline.size > 1 else engines.Engine
    with Shapes(allow_non_fake_inputs=True), unknown_values():
        config = deepspeed_config(spec, layout, "fp32")
        engine = kind(spec, execution, config, torch.device("cpu"), mesh)
        with Traffic() as traffic:
            engine.step([batch_of(spec, layout)] * layout.accumulation, 1e-3, 1.0)
        held: Counter[str] = Counter()
        for fragment in engine.fragments():
            held[fragment.name] += len(fragment)
    return {"held": held, "bytes": traffic.bytes}


def join(rank: int, world: int) -> None:
    """A group whose other ranks agree to everything at once."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": "0", "DS_ACCELERATOR": "cpu"}
    deepspeed.ops.__compatible_ops__ = {}
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)


def unknown_values() -> ExitStack:
    """What looks at values is left out: first weights, moving them, and DeepSpeed's comparison between ranks."""
    agreed = "deepspeed.runtime.zero.partitioned_param_coordinator.assert_ints_same_as_other_ranks"
    stack = ExitStack()
    stack.enter_context(patch.object(engines, "initialise", lambda *_: None))
    stack.enter_context(patch.object(torch.nn.Module, "to", lambda module, *_, **__: module))
    stack.enter_context(patch(agreed, lambda _: None))
    return stack


def batch_of(spec: RunSpec, layout: ParallelLayout) -> Batch:
    shape = (layout.micro_batch, spec.train.sequence_length)
    tokens = np.zeros(shape, np.int64)
    return Batch(tokens, tokens, np.zeros(shape, np.int32), np.zeros(layout.micro_batch, np.int64))


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), sys.argv[2:])))
