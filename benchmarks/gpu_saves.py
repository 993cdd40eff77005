"""What training on one GPU loses to a checkpoint, against DeepSpeed and torch: benchmarks/checkpoints.py, on a device.

    python -m benchmarks.gpu_saves [--hardware h100] [--rounds 3] [--steps 3] [--folder .] [--run OVERRIDES] [--json]

The state is that of bf16 training under ZeRO 1: fp32 weights and AdamW's, which DeepSpeed saves with the bf16 weights
beside them. Warming up, our first save has the memory for its copy made and registered with the driver: `first stall`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from aiftrain.data.batches import Batch
from aiftrain.plan.engine_config import deepspeed_config
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.spec import RunSpec
from aiftrain.train import engine as engine_module
from aiftrain.train.engine import Engine
from aiftrain.train.mesh import ALONE
from benchmarks.checkpoints import summary
from benchmarks.checkpoints_ways import Loop, take_turns, ways
from benchmarks.gpu import ONE_B, batches_of, draw_on_device, join_alone

HALF_B = f"{ONE_B} model.num_layers=12"


def measure(spec: RunSpec, rounds: int, steps: int, folder: Path) -> dict[str, Any]:
    plan = make_plan(spec)
    config = deepspeed_config(spec, plan.execution.layout, plan.execution.precision)
    engine = Engine(spec, plan.execution, config, join_alone(spec), ALONE)
    loop, contestants = Loop(engine, batches(spec)), ways(spec, engine, folder)
    loop.step()
    first = loop.turn(contestants["aiftrain"], steps)
    turns = take_turns(loop, contestants, rounds, steps)
    return {
        "card": torch.cuda.get_device_name(),
        "parameters": spec.model.parameters,
        "bytes": first["bytes"],
        "rounds": rounds,
        "first_stall": first["stall"],
        "ways": {name: summary(of_way) for name, of_way in turns.items()},
        "turns": turns,
    }


def batches(spec: RunSpec) -> Iterator[list[Batch]]:
    return (list(batches_of(spec, step)) for step in itertools.count())


def table(result: dict[str, Any]) -> str:
    whole = result["ways"]["deepspeed"]["stall"]
    head = (
        f"{result['card']}: {result['bytes'] / 1e9:.1f} GB of {result['parameters']:,} parameters, "
        f"{result['rounds']} rounds; first stall {result['first_stall']:.3f} s\n"
        f"{'':20}{'s/step':>9}{'stall, s':>10}{'of DeepSpeed':>14}{'slower':>9}{'steps':>7}\n"
    )
    return head + "\n".join(
        f"{name:20}{way['step']:9.3f}{way['stall']:10.3f}{way['stall'] / whole:14.1%}{way['slower']:9.1%}"
        f"{way['steps_beside']:7.0f}"
        for name, way in result["ways"].items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hardware", default="h100")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk in question")
    parser.add_argument("--run", default=HALF_B)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    vars(engine_module)["initialise"] = draw_on_device  # a CPU takes a minute for a large model
    spec = resolve([f"hardware={options.hardware}", *options.run.split()])
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = measure(spec, options.rounds, options.steps, Path(folder).absolute())
    print(json.dumps(result) if options.json else table(result), flush=True)
    os._exit(0)  # dcp leaves threads behind


if __name__ == "__main__":
    main()
