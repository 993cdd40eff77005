"""This process and its machine: cores, processes that are ours, what dies with its parent, which packages are there."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(sign: signal.Signals) -> None:
    """Have the kernel send `sign` to this process when its parent ends, even by SIGKILL.

    A rank asks for SIGTERM: it then saves and leaves when its launcher is gone. Linux only; elsewhere
    nothing happens.
    """
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(sign), 0, 0, 0)
    except (AttributeError, OSError):
        return


def runs(pid: int, *words: str) -> bool:
    """Whether process `pid` lives, is no zombie, and has every one of `words` among its arguments."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    alive = arguments != [b""]  # a zombie has none
    return alive and all(os.fsencode(word) in arguments for word in words)


def usable_cores() -> int:
    """Cores this process may use: its affinity, less what a container's CPU quota takes away."""
    cores = len(os.sched_getaffinity(0))
    quota = _cgroup_quota()
    return max(1, min(cores, int(quota))) if quota else cores


def _cgroup_quota() -> float | None:
    """Cores of time that control group version 2 grants; None where it sets no limit."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) / int(period)


def has_package(name: str) -> bool:
    """Whether `import name` would find something, without the seconds that importing torch takes."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # something on the import path refuses it
        return False
