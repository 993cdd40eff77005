"""Made-up benches, with figures that can be told by hand."""

from __future__ import annotations

from typing import Any

from aiftrain.run.bench import Bench, Machine, Product, Step, Stream, Transfer


def product(tflops: float, *, precision: str = "bf16", name: str = "square", side: int = 1024) -> Product:
    shape = {"m": side, "n": side, "k": side}
    seconds = 2 * side**3 / tflops / 1e12
    rates = {"tflops": tflops, "tflops_slowest": tflops}
    return Product(name=name, precision=precision, seconds=seconds, repetitions=5, **shape, **rates)


def transfer(
    operation: str,
    *,
    gb_per_s: float,
    scope: str = "inside a node",
    ranks: int = 4,
    size: int = 2**20,
    us: float = 100.0,
) -> Transfer:
    rate = {"gb_per_s": gb_per_s, "seconds": us * 1e-6}
    return Transfer(operation=operation, scope=scope, ranks=ranks, bytes=size, repetitions=5, **rate)


def step(strategy: str = "zero1", *, tokens_per_s: float = 1000.0, precision: Any = "fp32") -> Step:
    model = {"layers": 1, "parameters": 1000, "tokens": 128, "flops_per_token": 1e9}
    rates = {"seconds": 128 / tokens_per_s, "tokens_per_s": tokens_per_s}
    return Step(strategy=strategy, precision=precision, peak_memory_gib=None, repetitions=5, **model, **rates)


def stream(gb_per_s: float) -> Stream:
    rates = {"gb_per_s": gb_per_s, "gb_per_s_slowest": gb_per_s}
    return Stream(operation="triad", bytes=3 * 2**20, seconds=0.01, repetitions=5, **rates)


def bench(*, hardware: str = "cpu", nodes: int = 1, ranks_per_node: int = 4, **figures: Any) -> Bench:
    machine = Machine(
        factory="local",
        hardware=hardware,
        device="A <fast> device",
        nodes=nodes,
        ranks=nodes * ranks_per_node,
        ranks_per_node=ranks_per_node,
        threads=1,
        backend="gloo",
    )
    return Bench(date="2026-11-26T12:00:00+00:00", recipe="smoke", machine=machine, versions={"torch": "2"}, **figures)
