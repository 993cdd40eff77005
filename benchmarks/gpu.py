"""The training step on one GPU: tokens/s and memory of variants of a run, one after the other in one process.

    python benchmarks/gpu.py "train.compile=true" "train.compile=true train.attention=dense" [--run OVERRIDES]

Each argument is a variant: overrides over those of --run. Batches are made up: random tokens, documents of 16 to 4,096
tokens. Weights are drawn on the device. A line of JSON each: median tokens/s of the last steps, the first forward and
backward pass with its compilation, memory by torch's allocator beside the plan's, and the losses,
which must agree between variants that only compute differently.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from aiftrain.data.batches import IGNORED, Batch
from aiftrain.plan.engine_config import deepspeed_config
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.rank import Rank
from aiftrain.run.spec import RunSpec
from aiftrain.train import engine as engine_module
from aiftrain.train.engine import Engine
from aiftrain.train.mesh import ALONE
from aiftrain.train.model import Decoder
from aiftrain.train.rendezvous import connect, join

GIB = 2**30
ONE_B = (
    "recipe=eu-llm-1b nodes=1 factory=local hardware.devices_per_node=1 data=smoke model.vocab_size=32768 "
    "train.tokens=null train.steps=100 train.global_batch=16 train.micro_batch=2 optimizer.warmup_steps=2"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="+")
    parser.add_argument("--run", default=ONE_B)
    parser.add_argument("--hardware", default="h200")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    vars(engine_module)["initialise"] = draw_on_device  # a CPU takes a minute for a large model
    device: torch.device | None = None
    for variant in arguments.variants:
        overrides = [f"hardware={arguments.hardware}", *arguments.run.split(), *variant.split()]
        spec = resolve(overrides)
        device = device or join_alone(spec)
        try:
            facts = measure(spec, device, arguments.steps, arguments.profile)
        except Exception as error:  # the other variants are still worth their time
            facts = {"failed": f"{type(error).__name__}: {error}"[:2000]}
        print(json.dumps({"variant": variant} | facts), flush=True)
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()


def measure(spec: RunSpec, device: torch.device, steps: int, profile: bool) -> dict[str, Any]:
    """Train `steps` steps; the first, which compiles, does not count."""
    plan = make_plan(spec)
    layout, precision = plan.execution.layout, plan.execution.precision
    torch.cuda.reset_peak_memory_stats()
    engine = Engine(spec, plan.execution, deepspeed_config(spec, layout, precision), device, ALONE)
    seconds, losses = [], []
    for step in range(steps):
        batches = list(batches_of(spec, step))
        tokens = sum(batch.valid_tokens for batch in batches)
        started = time.perf_counter()
        if profile and step == steps - 1:
            _profiled(engine, batches, tokens)
            break
        losses.append(engine.step(batches, 1e-4, tokens)[0] / tokens)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    engine._engine.destroy()  # its hooks would keep all of it in memory
    rate = spec.timeline.at(0).tokens_per_step / statistics.median(seconds[2:])
    return {
        "tokens_per_s": round(rate),
        "tflops": round(rate * spec.model.flops_per_token(spec.train.sequence_length) / 1e12, 1),
        "kernel": engine.attention.kernel.name,
        "passed_over": engine.attention.passed_over,
        "first_s": round(seconds[0], 1),
        "allocated_gib": round(torch.cuda.max_memory_allocated() / GIB, 2),
        "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 2),
        "planned": _planned(plan),
        "losses": losses,
        "card": torch.cuda.get_device_name(),
    }


def _planned(plan: Any) -> dict[str, Any]:
    memory = plan.prediction.model_dump(mode="json").get("memory") or {}
    return {key: round(value / GIB, 2) if isinstance(value, int) else value for key, value in memory.items()}


def _profiled(engine: Engine, batches: list[Batch], tokens: int) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        engine.step(batches, 1e-4, tokens)
        torch.cuda.synchronize()
    table = profile.key_averages().table(sort_by="self_device_time_total", row_limit=25, max_name_column_width=70)
    print("\n".join(line[:70] + line[-130:] for line in table.splitlines()), file=sys.stderr)


def batches_of(spec: RunSpec, step: int) -> Iterator[Batch]:
    """Micro-batches of one step, the same in every variant."""
    rng = np.random.default_rng(step)
    rows, length = spec.train.micro_batch, spec.train.sequence_length
    for _ in range(spec.train.global_batch // rows):
        tokens = rng.integers(0, spec.model.vocab_size, (rows, length + 1))
        tokens[:, 1::2] = tokens[:, :-1:2]  # something to learn
        documents = np.zeros((rows, length), np.int32)
        for row in documents:
            ends = np.cumsum(np.exp(rng.uniform(np.log(16), np.log(4096), length)).astype(int))
            row += np.searchsorted(ends, np.arange(length), side="right").astype(np.int32)
        targets = tokens[:, 1:].copy()
        targets[:, :-1][documents[:, 1:] != documents[:, :-1]] = IGNORED
        yield Batch(np.ascontiguousarray(tokens[:, :-1]), targets, documents, np.zeros(rows, np.int64))


@torch.no_grad()
def draw_on_device(model: Decoder, seed: int) -> None:
    model.to("cuda")
    generator = torch.Generator("cuda").manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(0.0, model.spec.init_std, generator=generator)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)


def join_alone(spec: RunSpec) -> torch.device:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29533"}
    rank = Rank(rank=0, world_size=1, local_rank=0, local_size=1, launcher="none")
    device = join(rank, spec.hardware, connect(rank))
    assert dist.is_initialized()
    return device


if __name__ == "__main__":
    main()
