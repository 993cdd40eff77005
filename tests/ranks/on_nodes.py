"""A rank in trouble, or on a node of its own as far as host names tell (that needs root).

RANKS_PER_NODE: every so many ranks share a host name. CORES_1=0,1: rank 1 may run there only. IFNAME_1: rank 1's
interface for gloo. STOPS=1 STOPS_AT=look: the kernel stops rank 1 when it comes to that function of the checks.
ABSENT=1: rank 1 never starts. PATIENCE: seconds that the ranks wait for each other. PROGRAM: what runs, if no trainer.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import socket
from datetime import timedelta

from aiftrain.train.preflight import alarm, check

_NEW_HOST_NAME = 0x04000000  # CLONE_NEWUTS of linux/sched.h


def main(arguments: list[str]) -> int:
    """Train, as this rank would there."""
    rank, per_node = int(os.environ["RANK"]), int(os.environ.get("RANKS_PER_NODE", "0"))
    if per_node:
        _move(rank, per_node)
    if cores := os.environ.get(f"CORES_{rank}"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    if os.environ.get("ABSENT") == str(rank):
        return 0
    if interface := os.environ.get(f"IFNAME_{rank}"):
        os.environ["GLOO_SOCKET_IFNAME"] = interface
    if patience := os.environ.get("PATIENCE"):
        vars(check)["TIMEOUT"] = timedelta(seconds=float(patience))
        alarm._NO_ANSWER = 3.0
    if os.environ.get("STOPS") == str(rank):
        _stop_at(os.environ["STOPS_AT"])
    program = importlib.import_module(os.environ.get("PROGRAM", "aiftrain.train") + ".__main__")
    code: int = program.main(arguments)
    return code


def _move(rank: int, per_node: int) -> None:
    """To another host name, and to that node's count of ranks."""
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_HOST_NAME):
        raise OSError(ctypes.get_errno(), "cannot leave the machine's host name; this needs root")
    socket.sethostname(f"node{rank // per_node}")
    os.environ |= {"LOCAL_RANK": str(rank % per_node), "LOCAL_WORLD_SIZE": str(per_node)}


def _stop_at(function: str) -> None:
    """Have the kernel stop this process, as a node that freezes does, when it comes to a function of the checks."""
    original = getattr(check, function)

    def stopped(*values: object) -> object:
        os.kill(os.getpid(), signal.SIGSTOP)
        return original(*values)

    setattr(check, function, stopped)
