"""Times an all-reduce over all ranks, and an exchange of each rank with its like on other nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.distributed as dist

from aiftrain.train.measure import finish, seconds

# Bytes that each rank sends: enough to be limited by bandwidth, few enough to take milliseconds.
SIZE = {"cuda": 256 * 2**20, "cpu": 2**20}
_REPEATS = 5
_BARRIERS = 3


def clocks(device: torch.device) -> tuple[float, ...]:
    """Unix seconds after each of some barriers, which let all ranks go at the same moment."""
    token = torch.zeros(1, device=device)

    def read() -> float:
        dist.all_reduce(token)
        finish(device)
        return time.time()

    read()  # the first collective makes the connections
    return tuple(read() for _ in range(_BARRIERS))


def all_reduce_time(device: torch.device) -> float:
    """Seconds of an all-reduce of `SIZE` bytes over all ranks: the best of some."""
    load = torch.zeros(SIZE[device.type] // 4, device=device)
    return _best(lambda: dist.all_reduce(load), device)


def exchange_times(partners: Sequence[int], device: torch.device) -> tuple[tuple[int, float], ...]:
    """(partner, seconds) to send `SIZE` bytes to each of `partners` and get as many; -1 sits a round out.

    All ranks of two nodes talk at once, as in training; so what is measured is what their network cards share.
    """
    sent, got = (torch.zeros(SIZE[device.type] // 4, device=device) for _ in range(2))
    times = []
    for partner in partners:
        time_taken = 0.0 if partner < 0 else _best(partial(exchange, sent, got, partner), device)
        times.append((partner, time_taken))
    return tuple(times)


def exchange(sent: torch.Tensor, got: torch.Tensor, partner: int) -> None:
    """Send a tensor to another rank and get one of its size from there, at the same time."""
    both = [dist.P2POp(dist.isend, sent, partner), dist.P2POp(dist.irecv, got, partner)]
    for work in dist.batch_isend_irecv(both):
        work.wait()


def _best(action: Callable[[], object], device: torch.device) -> float:
    """Of the quickest of some calls, after one that is not timed: it waits for late ranks, and connects."""
    action()
    return min(seconds(action, device) for _ in range(_REPEATS))
