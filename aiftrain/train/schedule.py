"""The learning rate: a pure function of the step, so that nothing of it needs saving."""

from __future__ import annotations

import math

from aiftrain.run.spec import OptimizerSpec


def learning_rate(spec: OptimizerSpec, step: int, total_steps: int) -> float:
    """The rate of step `step` (0-based) of `total_steps`.

    Warm-up rises linearly to lr at its last step. Cosine: arXiv 1608.03983 without restarts; wsd: arXiv 2404.06395
    with a linear decay.
    """
    if step < spec.warmup_steps:
        return spec.lr * (step + 1) / spec.warmup_steps
    done = (step - spec.warmup_steps) / max(1, total_steps - 1 - spec.warmup_steps)
    return spec.lr * _factor(spec, step, total_steps, min(1.0, done))


def _factor(spec: OptimizerSpec, step: int, total_steps: int, done: float) -> float:
    floor = spec.min_lr_ratio
    if spec.schedule == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
    if spec.schedule == "wsd":
        decay_steps = max(1, round(spec.decay_fraction * total_steps))
        left = max(0.0, min(1.0, (total_steps - 1 - step) / decay_steps))
        return floor + (1 - floor) * left
    return 1.0
