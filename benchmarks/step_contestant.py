"""One rank of a contestant of benchmarks/step.py or scaling.py, that times steps on request.

    RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 OMP_NUM_THREADS=2 \
        python -m benchmarks.step_contestant NAME SIZE VOCABULARY
"""

from __future__ import annotations

import os
import sys

import torch

from aiftrain.run.model import ModelSpec
from benchmarks.step_ours import bare_steps, engine_steps
from benchmarks.step_task import BATCH, LENGTH, Steps, serve, shape
from benchmarks.step_theirs import deepspeed_steps, fabric_steps, serve_trainer

SQUARE = 1024  # as in aiftrain/train/measure.py


def matmul_steps(model: ModelSpec) -> Steps:
    """Nothing but matrix products: square ones, of as many operations as a step of the model."""
    left, right, out = (torch.ones(SQUARE, SQUARE) for _ in range(3))
    products = round(flops(model) / (2 * SQUARE**3))

    def run(count: int) -> None:
        for _ in range(count * products):
            torch.mm(left, right, out=out)

    return run


def flops(model: ModelSpec) -> float:
    return model.flops_per_token(LENGTH) * BATCH * LENGTH


def contestant(name: str, model: ModelSpec) -> Steps:
    if name == "matmul":
        return matmul_steps(model)
    if name == "bare":
        return bare_steps(model)
    if name == "fabric":
        return fabric_steps(model)
    if name in ("deepspeed", "deepspeed-tuned"):
        return deepspeed_steps(model)
    ours, stage, *compiled = name.split("-")
    assert ours == "aiftrain"
    return engine_steps(model, int(stage.removeprefix("zero")), compiled == ["compiled"])


def main() -> None:
    name, size, vocabulary = sys.argv[1:]
    model = shape(size, int(vocabulary))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if name == "trainer":
        serve_trainer(model)
    else:
        serve(contestant(name, model), {"parameters": model.parameters, "flops": flops(model)})


if __name__ == "__main__":
    main()
