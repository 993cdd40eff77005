"""The learning rate: a pure function of the step, so that nothing of it needs saving."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aiftrain.run.optimizer import OptimizerSpec
from aiftrain.run.spec import RunSpec


@dataclass(frozen=True)
class Cycle:
    """From `begin` to `end` (steps): up in `warmup` steps to `lr`, and down again as the schedule says."""

    begin: int
    end: int
    warmup: int
    lr: float


class Schedule:
    """The learning rate of a run. A stage with `rewarm` begins a new cycle, from the rate that the last one ended with.

    Warming up again and decaying again is what goes on with a trained model (arXiv 2403.08763).
    """

    def __init__(self, spec: RunSpec) -> None:
        self._optimizer = spec.optimizer
        self._cycles = _cycles(spec)

    def rate(self, step: int) -> float:
        """The rate of step `step`, counted from 0."""
        number = max(i for i, cycle in enumerate(self._cycles) if i == 0 or cycle.begin <= step)
        cycle = self._cycles[number]
        after = step - cycle.begin
        if after >= cycle.warmup:
            return cycle.lr * decay(self._optimizer, after, cycle.end - cycle.begin, cycle.warmup)
        low = self.rate(cycle.begin - 1) if number else 0.0
        return low + (cycle.lr - low) * (after + 1) / cycle.warmup


def decay(spec: OptimizerSpec, step: int, steps: int, warmup: int) -> float:
    """The share of the peak at step `step` of a cycle of `steps`, once it is warm.

    cosine: arXiv 1608.03983 without restarts; wsd: arXiv 2404.06395, whose end falls linearly or, with 1-sqrt, as
    one less the square root of the share of the decay that is done (arXiv 2405.18392, which found that better).
    """
    if spec.schedule == "constant":
        return 1.0
    floor = spec.min_lr_ratio
    if spec.schedule == "cosine":
        done = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
    done = max(0.0, 1 - (steps - 1 - step) / spec.decay_steps(steps))
    return floor + (1 - floor) * (1 - (math.sqrt(done) if spec.decay_shape == "1-sqrt" else done))


def _cycles(spec: RunSpec) -> list[Cycle]:
    optimizer, timeline = spec.optimizer, spec.timeline
    begins = {phase.stage: phase.first_step for phase in timeline.stages()}
    marks = [(0, optimizer.warmup_steps, optimizer.lr)]
    for name, stage in spec.stages.items():
        if stage.rewarm is not None and begins[name] < timeline.total_steps:
            marks.append((begins[name], stage.rewarm, stage.lr or optimizer.lr))
    ends = [*(begin for begin, _, _ in marks[1:]), timeline.total_steps]
    return [Cycle(begin, end, warmup, lr) for (begin, warmup, lr), end in zip(marks, ends, strict=True)]
