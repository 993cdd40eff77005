"""What holds at each step of a run: batch, sequence length, rotary base, mixture, and the samples and tokens before it.

A run is a few phases in which nothing changes, so that any step is reached at once.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from aiftrain.run.training_stages import Recompute

if TYPE_CHECKING:
    from aiftrain.run.spec import RunSpec


@dataclass(frozen=True)
class Phase:
    """A stretch of steps in which nothing changes. `first_sample` and `first_token` count what comes before it."""

    stage: str | None  # the name of the stage it belongs to; None: before the first
    global_batch: int  # sequences
    micro_batch: int  # sequences of one rank in one forward pass
    sequence_length: int  # tokens
    rope_theta: float
    recompute: Recompute = "none"
    weights: Mapping[str, float] | None = None  # of the sources; None: the corpus's own
    first_step: int = 0
    first_sample: int = 0
    first_token: int = 0

    @property
    def tokens_per_step(self) -> int:
        return self.global_batch * self.sequence_length

    def samples_before(self, step: int) -> int:
        """Samples before step `step` of this phase: the number of its first one."""
        return self.first_sample + (step - self.first_step) * self.global_batch

    def tokens_before(self, step: int) -> int:
        return self.first_token + (step - self.first_step) * self.tokens_per_step

    def step_at(self, tokens: int) -> int:
        """The first step of this phase that has so many tokens behind it."""
        return self.first_step + max(0, -(-(tokens - self.first_token) // self.tokens_per_step))

    def compares_with(self, other: Phase) -> bool:
        """Whether losses of both are of one kind: of the same data in pieces of the same length. Batches may differ."""
        ours, theirs = ((p.stage, p.sequence_length, p.rope_theta, p.weights) for p in (self, other))
        return ours == theirs

    def followed(self, step: int, changes: Mapping[str, Any]) -> Phase:
        """The phase that begins at `step` with `changes`."""
        return replace(
            self,
            first_step=step,
            first_sample=self.samples_before(step),
            first_token=self.tokens_before(step),
            **changes,
        )


@dataclass(frozen=True)
class Timeline:
    """The phases of a run, those beyond its end among them. Steps are counted from 0."""

    phases: tuple[Phase, ...]
    total_steps: int

    def at(self, step: int) -> Phase:
        """What holds at step `step`."""
        return self.phases[bisect_right(self.phases, step, key=lambda phase: phase.first_step) - 1]

    def after(self, steps: int) -> Phase:
        """What held in the last of `steps` finished steps."""
        return self.at(max(0, steps - 1))

    def samples_before(self, step: int) -> int:
        return self.at(step).samples_before(step)

    def tokens_before(self, step: int) -> int:
        return self.at(step).tokens_before(step)

    @property
    def total_tokens(self) -> int:
        return self.tokens_before(self.total_steps)

    def spans(self) -> Iterator[tuple[Phase, int]]:
        """The phases that the run comes to, each with how many steps it lasts."""
        reached = [phase for phase in self.phases if phase.first_step < self.total_steps]
        ends = [*(phase.first_step for phase in reached[1:]), self.total_steps]
        yield from ((phase, end - phase.first_step) for phase, end in zip(reached, ends, strict=True))

    def stages(self) -> Iterator[Phase]:
        """The phase that each stage begins with, the first among them; in it a growing batch has its first size."""
        yield self.phases[0]
        yield from (after for before, after in pairwise(self.phases) if after.stage != before.stage)

    @property
    def common_length(self) -> int:
        """The least number of tokens that windows of all lengths divide, also of stages beyond the end."""
        return math.lcm(*(phase.sequence_length for phase in self.phases))


def make_timeline(spec: RunSpec) -> Timeline:
    """The timeline of a spec. Of stages that do not follow each other (plan refuses them) the later one counts."""
    phases = [_first(spec)]
    for tokens, step, changes in _changes(spec):
        last = phases[-1]
        begin = max(last.first_step, last.step_at(tokens) if step is None else step)
        if begin == last.first_step:
            phases.pop()
        phases.append(last.followed(begin, changes))
    return Timeline(tuple(phases), _total_steps(spec, phases))


def _first(spec: RunSpec) -> Phase:
    train = spec.train
    return Phase(
        stage=None,
        global_batch=train.batch_warmup.start if train.batch_warmup else train.global_batch,
        micro_batch=train.micro_batch,
        sequence_length=train.sequence_length,
        rope_theta=spec.model.rope_theta,
        recompute=train.recompute,
    )


def _changes(spec: RunSpec) -> Iterator[tuple[int, int | None, Mapping[str, Any]]]:
    """What changes, in order: at how many tokens or, where that is given, at which step."""
    warmup, full = spec.train.batch_warmup, spec.train.global_batch
    if warmup:
        count = warmup.levels(full)
        for level in range(1, count + 1):
            batch = min(full, warmup.start + level * warmup.increment)
            yield warmup.tokens * level // count, None, {"global_batch": batch}
    for name, stage in spec.stages.items():
        yield stage.from_tokens or 0, stage.from_step, {"stage": name} | stage.changes


def _total_steps(spec: RunSpec, phases: list[Phase]) -> int:
    """Steps of the whole run; a token budget is rounded up to a whole step."""
    budget = spec.train.tokens
    if budget is None:
        assert spec.train.steps is not None
        return spec.train.steps
    begun = [phase for phase in phases if phase.first_token < budget]
    return begun[-1].step_at(budget)
