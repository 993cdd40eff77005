"""A network of a rig's own: this process and what it starts move into it, each node hangs on its bridge by a cable.

Nothing of it is seen outside, and no packet leaves it. A node's cable can be pulled: its packets vanish then, without
any word to the other side, as when a switch dies.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of linux/sched.h
_PREFIX = "10.213.77"  # of addresses that exist in the rig's network alone
_LIBC = ctypes.CDLL(None, use_errno=True)

GATEWAY = f"{_PREFIX}.1"  # this process's own address, where the controller listens


class Network:
    """Entered and left by `enter` and `leave`; the calling thread and its children are inside meanwhile. Needs root."""

    def __init__(self) -> None:
        self._outside: int | None = None

    def enter(self) -> None:
        self._outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        _check(_LIBC.unshare(_NEW_NETWORK))
        _ip("link", "set", "lo", "up")
        _ip("link", "add", "bridge", "type", "bridge")
        _ip("address", "add", f"{GATEWAY}/24", "dev", "bridge")
        _ip("link", "set", "bridge", "up")

    def leave(self) -> None:
        """Back to where `enter` was called; the network goes with the last process that is in it."""
        if self._outside is not None:
            _check(_LIBC.setns(self._outside, _NEW_NETWORK))
            os.close(self._outside)
            self._outside = None

    def connect(self, number: int, process: int) -> None:
        """A cable from the bridge to the network of a process, of node `number`: its end there is hsn0."""
        cable = f"node{number}"
        subprocess.run(["ip", "link", "delete", cable], capture_output=True)  # of the node before it was started anew
        _ip("link", "add", cable, "type", "veth", "peer", "name", "hsn0", "netns", str(process))
        self.plug(number)

    def plug(self, number: int) -> None:
        _ip("link", "set", f"node{number}", "master", "bridge", "up")

    def unplug(self, number: int) -> None:
        _ip("link", "set", f"node{number}", "nomaster")


def address(number: int) -> str:
    """Of node `number`, from 1 on."""
    return f"{_PREFIX}.{10 + number}"


def inside(process: int) -> bool:
    """Whether a process has left this one's network for its own."""
    own, other = (Path(f"/proc/{each}/ns/net").readlink() for each in ("self", process))
    return own != other


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def _check(answer: int) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
