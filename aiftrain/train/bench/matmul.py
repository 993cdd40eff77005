"""The rate of matrix products: square ones by size, and those of the recipe's model, at each precision."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from aiftrain.run.bench import Missing, Product
from aiftrain.run.spec import RunSpec
from aiftrain.train.bench.pace import LEAST_CALLS, Setting, Timing, time_of
from aiftrain.train.measure import matmul
from aiftrain.train.precision import TYPES

Shape = tuple[int, int, int]  # m, n, k: [m, k] times [k, n]

_SIDES = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 2048, 4096, 8192, 16384)}
_PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")}


def products(setting: Setting, budget: float) -> Iterator[Product | Missing]:
    """From the smallest to the largest, as far as `budget` seconds go."""
    shapes = [("square", (side, side, side)) for side in _SIDES[setting.device.type]]
    shapes = sorted([*shapes, *model_products(setting.spec)], key=lambda named: _flops(named[1]))
    precisions = _PRECISIONS[setting.device.type]
    for precision in precisions:
        yield from _products(shapes, precision, setting.device, budget / len(precisions))


def model_products(spec: RunSpec) -> list[tuple[str, Shape]]:
    """The products of one micro-batch's forward pass, by the weights they are with.

    Those of latent attention count as one of as many weights; of experts each is given an equal part of the tokens.
    """
    model, tokens = spec.model, spec.train.micro_batch * spec.train.sequence_length
    hidden, width, rows = model.hidden_size, model.intermediate_size, tokens
    if model.moe:
        width = model.moe.expert_intermediate_size
        rows = max(1, tokens * model.moe.experts_per_token // model.moe.num_experts)
    heads = model.query_size + 2 * model.kv_size
    if model.latent:
        heads = model.attention_matmul_parameters // hidden
    return [
        ("attention in", (tokens, heads, hidden)),
        ("attention out", (tokens, hidden, model.mixed_size)),
        ("mlp in", (rows, (2 if model.gated else 1) * width, hidden)),
        ("mlp out", (rows, hidden, width)),
        ("head", (min(tokens, spec.train.loss_chunk), model.vocab_size, hidden)),
    ]


def _products(
    shapes: list[tuple[str, Shape]], precision: str, device: torch.device, budget: float
) -> Iterator[Product | Missing]:
    """The smallest take less than their share of the time, so that one of the larger may take a quarter of all."""
    rate = float("inf")
    for name, shape in shapes:
        expected = LEAST_CALLS * _flops(shape) / rate
        if expected > budget / 4:
            yield Missing(
                what=f"{precision} products from {' x '.join(map(str, shape))} on",
                why=f"it would take {expected:,.2g} s, at the rate of the smaller ones",
            )
            return
        timing = time_of(matmul(shape, TYPES[precision], device), device, budget / len(shapes))
        rate = _flops(shape) / timing.slowest
        yield _product(name, precision, shape, timing)


def _product(name: str, precision: str, shape: Shape, timing: Timing) -> Product:
    m, n, k = shape
    return Product(
        name=name,
        precision=precision,
        m=m,
        n=n,
        k=k,
        seconds=timing.usual,
        tflops=_flops(shape) / timing.usual / 1e12,
        tflops_slowest=_flops(shape) / timing.slowest / 1e12,
        repetitions=timing.calls,
    )


def _flops(shape: Shape) -> float:
    m, n, k = shape
    return 2.0 * m * n * k
