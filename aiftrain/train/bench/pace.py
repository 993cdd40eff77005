"""Times an action on all ranks at once, as often as the time allows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from aiftrain.run.spec import RunSpec
from aiftrain.train.measure import seconds
from aiftrain.train.rendezvous import gather_numbers

_SAMPLE = 1e-3  # seconds that one sample takes at least: quicker actions are called several times in it
_FEWEST, _MOST = 3, 25  # samples
LEAST_CALLS = 2 + _FEWEST  # that timing something takes, however long each is


@dataclass(frozen=True)
class Setting:
    """Where a rank measures. `hosts` in order of rank."""

    spec: RunSpec
    device: torch.device
    rank: int
    hosts: Sequence[str]


@dataclass(frozen=True)
class Timing:
    """Seconds of one call on each rank: the median of its samples; and how many calls that were."""

    of_ranks: Sequence[float]
    calls: int

    @property
    def usual(self) -> float:
        return statistics.median(self.of_ranks)

    @property
    def slowest(self) -> float:
        return max(self.of_ranks)


def time_of(action: Callable[[], object], device: torch.device, budget: float) -> Timing:
    """Time `action` for about `budget` seconds, after a call that chooses kernels and makes connections.

    Every rank takes part, and makes as many calls as the others: the actions of some are collectives. What takes longer
    than `budget` by itself is timed once.
    """
    seconds(action, device)
    first = gather_numbers(seconds(action, device), device)
    once = max(first)
    if once > budget:
        return Timing(first, 1)
    calls = max(1, round(_SAMPLE / once))
    samples = max(_FEWEST, min(_MOST, int(budget / (once * calls))))
    own = statistics.median(seconds(action, device, calls) for _ in range(samples))
    return Timing(gather_numbers(own, device), samples * calls)
