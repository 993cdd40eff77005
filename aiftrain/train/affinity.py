"""Binds the ranks that torchrun starts to the cores next to their GPUs, as other launchers do at a site's word.

torchrun lets every rank run on all cores: then a rank's threads, and the pinned memory that they touch first, land on
any socket, and half of the copies to the GPU cross between sockets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch

from aiftrain.run.machine import Hardware
from aiftrain.run.rank import Rank
from aiftrain.train.preflight.cores import Cores, parse_cores
from aiftrain.train.preflight.finding import runs_of
from aiftrain.train.preflight.survey import device_address, device_numa, numa_domains

_SYS = Path("/sys")


def bind_near_device(rank: Rank, hardware: Hardware) -> str | None:
    """Keep this rank to its share of the cores of its GPU's NUMA domain; those cores, or None where nothing is done.

    Nothing where another launcher binds, where somebody bound the rank already, and where the kernel does not tell on
    which domain the GPUs hang. Threads that already run stay where they are: to be called before there are any.
    """
    if hardware.is_cpu or rank.launcher != "torchrun":
        return None
    domains = {int(number): parse_cores(cores) for number, cores in numa_domains(_SYS).items()}
    mine = near_cores(_device_domains(), domains, rank, frozenset(os.sched_getaffinity(0)))
    if mine is None:
        return None
    os.sched_setaffinity(0, mine)
    return runs_of(mine)


def near_cores(devices: Sequence[int | None], domains: Mapping[int, Cores], rank: Rank, allowed: Cores) -> Cores | None:
    """The cores of `allowed` that fall to a rank, of the domain of its device; None where there is nothing to bind to.

    devices: the domain of each device of the node; domains: the cores of each. Ranks whose devices hang on one domain
    share it out. The second threads of cores have numbers of their own run, and each run is shared out by itself.
    """
    if not devices:
        return None
    own = rank.local_rank % len(devices)
    domain = devices[own]
    near = frozenset[int]() if domain is None else domains.get(domain, frozenset()) & allowed
    if near == allowed and len(domains) > 1:
        return None  # it was bound before
    sharing = [number for number in range(min(rank.local_size, len(devices))) if devices[number] == domain]
    return _part(near, sharing.index(own), len(sharing)) or None


def _part(cores: Cores, index: int, parts: int) -> Cores:
    """Part `index` of `parts` of each run of cores."""
    ordered = sorted(cores)
    breaks = [0, *(place for place, (a, b) in enumerate(pairwise(ordered), 1) if b > a + 1), len(ordered)]
    runs = [ordered[start:end] for start, end in pairwise(breaks)]
    return frozenset(core for run in runs for core in run[len(run) * index // parts : len(run) * (index + 1) // parts])


def _device_domains() -> list[int | None]:
    addresses = map(device_address, map(torch.cuda.get_device_properties, range(torch.cuda.device_count())))
    return [device_numa(_SYS, address) if address else None for address in addresses]
