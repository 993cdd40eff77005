"""Layouts of a thousand ranks, built and stepped through by DeepSpeed in shapes alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from aiftrain.plan.spec import resolve
from aiftrain.run.layout import ParallelLayout, make_layout
from tests.conftest import FULL_MATRIX

pytestmark = pytest.mark.slow
RANKS = ["factory=lumi", "hardware=cpu", "nodes=128", "launcher.ranks_per_node=8"]
PIPELINE = ["recipe=eu-llm-70b", "parallelism=3d", "parallelism.tensor=8", "parallelism.pipeline=8"]
BATCH = {"3d": "train.global_batch=128", "zero3": "train.global_batch=1024"}


def stepped(rank: int, overrides: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.train.shapes_only", str(rank), *overrides]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("rank", [0, 1023])
def test_70_billion_parameters_on_8_x_8_x_16_ranks(rank: int) -> None:
    """On the first stage and on the last: the layers of the stage, an eighth of each matrix, 1/16 of that."""
    overrides = [*PIPELINE, *RANKS, BATCH["3d"]]
    spec = resolve(overrides)
    layout = make_layout(spec)
    assert isinstance(layout, ParallelLayout)
    assert (layout.tensor_parallel, layout.pipeline_parallel, layout.data_parallel) == (8, 8, 16)
    held = stepped(rank, overrides)["held"]
    own = layout.layers(layout.place(rank).pipeline, spec.model.num_layers)
    assert {int(name.split(".")[1]) for name in held if name.startswith("layers.")} <= set(own)
    assert ("embed.weight" in held, "head.weight" in held) == (rank == 0, rank == 1023)
    layers = sum(spec.model.layer_parameters(layer) for layer in own)
    expected = (layers + spec.model.vocab_size * spec.model.hidden_size) / 8 / 16
    assert sum(held.values()) == pytest.approx(expected, rel=0.01)  # norms are whole on each rank of a tensor


def test_7_billion_parameters_on_1024_ranks_of_zero3() -> None:
    """A quarter of the layers, which are all alike; the whole model with `AIFTRAIN_FULL_MATRIX=1`."""
    layers = 32 if FULL_MATRIX else 8
    overrides = ["recipe=eu-llm-7b", "parallelism=zero3", f"model.num_layers={layers}", *RANKS, BATCH["zero3"]]
    parameters = resolve(overrides).model.parameters
    result = stepped(517, overrides)
    assert sum(result["held"].values()) == pytest.approx(parameters / 1024, rel=1e-3)
    # Gathered for the forward and again for the backward pass, in fp32.
    assert result["bytes"]["reduce-scatter"] == pytest.approx(4 * parameters, rel=1e-3)
