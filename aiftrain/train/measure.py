"""How long things take on a device; and how fast this machine multiplies matrices, so that training speed can be
given as a share of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from aiftrain.run.spec import Precision
from aiftrain.train.precision import TYPES

_SIZE = {"cpu": 1024, "cuda": 8192}  # large enough to reach the plateau, small enough to be quick
_REPEATS = 7


def matmul_flops(device: torch.device, precision: Precision) -> float:
    """FLOP/s of this rank's device on a square matrix product: the median of a few, after a warm-up."""
    size = _SIZE[device.type]
    product = matmul((size, size, size), TYPES[precision], device)
    seconds(product, device)
    return 2 * size**3 / statistics.median(seconds(product, device) for _ in range(_REPEATS))


def matmul(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    """A product of [m, k] with [k, n], for `shape` (m, n, k), to be called again and again."""
    m, n, k = shape
    left, right = torch.ones(m, k, dtype=dtype, device=device), torch.ones(k, n, dtype=dtype, device=device)
    return lambda: torch.mm(left, right)


def seconds(action: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Of one call, when it is made `calls` times in a row; what the device was given to do is waited for."""
    finish(device)
    started = time.perf_counter()
    for _ in range(calls):
        action()
    finish(device)
    return (time.perf_counter() - started) / calls


def finish(device: torch.device) -> None:
    """Wait for what the device was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
