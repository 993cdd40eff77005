"""What every contestant of benchmarks/step.py trains: shapes, batches, and how it is told to take its turn."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from aiftrain.run.model import ModelSpec

LENGTH, BATCH = 512, 4
LR, BETAS, WEIGHT_DECAY, MAX_NORM = 3e-4, (0.9, 0.95), 0.1, 1.0
SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_layers": 2, "num_heads": 2, "num_kv_heads": 2},
    "10m": {"hidden_size": 320, "intermediate_size": 864, "num_layers": 6, "num_heads": 5, "num_kv_heads": 5},
    "60m": {"hidden_size": 640, "intermediate_size": 1728, "num_layers": 10, "num_heads": 10, "num_kv_heads": 10},
}
Steps = Callable[[int], None]


def shape(size: str, vocabulary: int) -> ModelSpec:
    return ModelSpec.model_validate({"name": size, "vocab_size": vocabulary} | SHAPES[size])


def tokens_of(step: int) -> NDArray[np.int64]:
    """A batch [BATCH, LENGTH + 1] of random tokens, the same for every contestant."""
    return np.random.default_rng(step).integers(0, 8192, (BATCH, LENGTH + 1))


class Turn:
    """From the word to start until `end`."""

    def __init__(self) -> None:
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def end(self) -> None:
        answer(seconds=time.perf_counter() - self._started, cpu_seconds=time.process_time() - self._cpu_started)


def answer(**document: float) -> None:
    print(json.dumps(document), flush=True)


def serve(run: Steps, known: dict[str, float]) -> None:
    answer(**known)
    for line in sys.stdin:
        turn = Turn()
        run(int(line))
        turn.end()
