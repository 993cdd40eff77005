"""Names the ranks that all others wait for: each rank's own work in a step, which no collective hides, compared.

That is the time to read its batch and the first micro-batch's forward pass. Under ZeRO 3 weights are gathered inside
the forward pass, and all ranks wait there for the slowest: then mostly slow reading shows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from aiftrain.run.hostlist import ranks_by_host
from aiftrain.train.rendezvous import gather_numbers
from aiftrain.train.tracking import Tracker

_SLOW = 1.25  # times the median: ranks of one kind differ by some per cent
_NOTICEABLE = 0.02  # of a step, by which a rank must be late: who is late in nothing much holds nobody up


class Stopwatch:
    """Seconds of a piece of work on a device: between two events of its stream on a GPU, else by the clock.

    Starting and stopping do not wait for a GPU; reading does, where it is not done yet.
    """

    def __init__(self, device: torch.device) -> None:
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else []
        self._seconds = 0.0

    @contextmanager
    def timing(self) -> Iterator[None]:
        """What is done inside is timed."""
        started = time.perf_counter()
        if self._events:
            self._events[0].record()
        yield
        if self._events:
            self._events[1].record()
        self._seconds = time.perf_counter() - started

    @property
    def seconds(self) -> float:
        """Of the last piece of work."""
        if not self._events:
            return self._seconds
        self._events[1].synchronize()
        return float(self._events[0].elapsed_time(self._events[1])) / 1e3


@dataclass(frozen=True)
class Straggler:
    """A rank, or a host all of whose ranks are slow: `ratio` is its own work's time over the median of its like."""

    host: str
    ranks: tuple[int, ...]
    ratio: float


def find(work: Sequence[float], hosts: Sequence[str], step: float, stages: Sequence[int] = ()) -> list[Straggler]:
    """Who is slower than 1.25 times the median. `work` and `hosts` in order of rank; `step`: seconds of a whole one.

    Of two ranks the quicker one is the measure: the mean of both would hide the slow one. A host is named as one where
    all its ranks are slow and another host has ranks. `stages` of a pipeline, in order of rank: their work differs, so
    only ranks of the same one are compared.
    """
    stages = stages or [0] * len(work)
    usual = {n: statistics.median_low([w for w, of in zip(work, stages, strict=True) if of == n]) for n in set(stages)}
    late = {r: work[r] / usual[n] for r, n in enumerate(stages) if _is_late(work[r], usual[n], step)}
    found = []
    for host, ranks in ranks_by_host(hosts).items():
        slow = tuple(rank for rank in ranks if rank in late)
        whole = slow == ranks and len(ranks) < len(hosts)
        groups = [slow] if whole else [(rank,) for rank in slow]
        found += [Straggler(host, group, max(late[rank] for rank in group)) for group in groups]
    return found


class Watch:
    """Keeps each step's own work, and every `every` steps compares its median over them between the ranks."""

    def __init__(
        self, every: int, hosts: Sequence[str], stages: Sequence[int], device: torch.device, tracker: Tracker
    ) -> None:
        """`hosts` and `stages` in order of rank; only rank 0 needs the hosts, and writes the events."""
        self._every, self._hosts, self._stages = every, hosts, stages
        self._device, self._tracker = device, tracker
        self._work: list[float] = []
        self._steps: list[float] = []
        self._known: set[tuple[int, ...]] = set()

    def step(self, number: int, work: float, whole: float) -> None:
        """Step `number` took `whole` seconds, and `work` of them before this rank could wait for others."""
        if not self._every:
            return
        self._work.append(work)
        self._steps.append(whole)
        if number % self._every == 0:
            self._compare(number)
            self._work.clear()
            self._steps.clear()

    def _compare(self, number: int) -> None:
        """Who was slow the last time too is not told again."""
        work = gather_numbers(statistics.median(self._work), self._device)
        slow = find(work, self._hosts, statistics.median(self._steps), self._stages)
        for each in slow:
            if each.ranks not in self._known:
                ratio = round(each.ratio, 2)
                self._tracker.event("straggler", step=number, host=each.host, ranks=each.ranks, ratio=ratio)
        self._known = {each.ranks for each in slow}


def _is_late(seconds: float, usual: float, step: float) -> bool:
    return seconds > _SLOW * usual and seconds - usual > _NOTICEABLE * step
