"""Memory bandwidth: large arrays copied, and added with a factor (STREAM's copy and triad)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from aiftrain.run.bench import Stream
from aiftrain.train.bench.pace import Setting, time_of

_BYTES = {"cpu": 2**28, "cuda": 2**30}  # of one array: far more than caches hold


def streams(setting: Setting, budget: float) -> Iterator[Stream]:
    """Each reads and writes whole arrays, all ranks at once; `budget` in seconds."""
    size = _BYTES[setting.device.type]
    one, other, out = (torch.ones(size // 4, device=setting.device) for _ in range(3))
    actions: dict[str, tuple[Callable[[], object], int]] = {
        "copy": (lambda: out.copy_(one), 2),
        "triad": (lambda: torch.add(one, other, alpha=3.0, out=out), 3),
    }
    for name, (action, arrays) in actions.items():
        timing = time_of(action, setting.device, budget / len(actions))
        yield Stream(
            operation=name,
            bytes=arrays * size,
            seconds=timing.usual,
            gb_per_s=arrays * size / timing.usual / 1e9,
            gb_per_s_slowest=arrays * size / timing.slowest / 1e9,
            repetitions=timing.calls,
        )
