"""How fast this machine multiplies matrices, so that training speed can be given as a share of it."""

from __future__ import annotations

import statistics
import time

import torch

from aiftrain.run.spec import Precision

_SIZE = {"cpu": 1024, "cuda": 8192}  # large enough to reach the plateau, small enough to be quick
_REPEATS = 7


def matmul_flops(device: torch.device, precision: Precision) -> float:
    """FLOP/s of this rank's device on a square matrix product: the median of a few, after a warm-up."""
    size = _SIZE[device.type]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    _seconds(left, right)
    return 2 * size**3 / statistics.median(_seconds(left, right) for _ in range(_REPEATS))


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    finish(left.device)
    started = time.perf_counter()
    torch.mm(left, right)
    finish(left.device)
    return time.perf_counter() - started


def finish(device: torch.device) -> None:
    """Wait for what the device was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
