"""The connections of a process and its children, as the kernel shows them to their user: native libraries' too.

A look reads /proc/net/{tcp,tcp6,udp,udp6}, and finds out whose the sockets are in /proc/PID/fd (proc(5)). What opens
and closes between two looks is not seen, nor what belongs to another user or another network namespace.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aiftrain.run.nodes import Address, parse_address
from aiftrain.run.reading import text_of

_PROC = Path("/proc")
_TABLES = ("tcp", "tcp6", "udp", "udp6")
_REREAD = 10.0  # seconds: the kernel goes through its whole table of sockets for each reader, some ms on any machine
_LISTENS = b"0A"  # TCP_LISTEN, include/net/tcp_states.h
_SOCKET = "socket:["


@dataclass(frozen=True)
class Connection:
    """One that a process opened to somebody, or tries to."""

    process: int
    protocol: str  # tcp or udp
    address: Address
    port: int


class Family:
    """This process and all that descends from it: a child that was seen once stays one when its parent is gone."""

    def __init__(self) -> None:
        self._children: dict[int, str] = {}  # and when each began, in the kernel's clock ticks
        self._owners: dict[bytes, int] = {}  # of the sockets at the last look
        self._open: list[Connection] = []
        self._read = -math.inf

    def connections(self) -> list[Connection]:
        """What is open now; of sockets that were there before, as it was up to `_REREAD` seconds ago."""
        owners = {inode: process for process in self.processes() for inode in _sockets(process)}
        if owners != self._owners or time.monotonic() - self._read > _REREAD:
            self._owners, self._open, self._read = owners, list(_outgoing(owners)), time.monotonic()
        return self._open

    def processes(self) -> list[int]:
        """Their numbers, this process' own first."""
        self._children = {process: began for process, began in self._children.items() if _began(process) == began}
        found = [os.getpid(), *self._children]
        for process in found:  # which grows meanwhile
            new = [child for child in _children(process) if child not in found]
            self._children |= {child: _began(child) for child in new}
            found += new
        return found


def name_of(process: int) -> str:
    """What the kernel calls a process: its program's name, at most 15 characters."""
    return text_of(_PROC / str(process) / "comm").strip() or "gone"


def _children(process: int) -> list[int]:
    """The processes that any of its threads has started."""
    return [
        int(child)
        for thread in _names(_PROC / str(process) / "task")
        for child in text_of(_PROC / str(process) / "task" / thread / "children").split()
    ]


def _began(process: int) -> str:
    """Number 22 of stat: with it a number that was given to another process is told apart."""
    fields = text_of(_PROC / str(process) / "stat").rpartition(")")[2].split()
    return fields[19] if fields else ""


def _sockets(process: int) -> Iterator[bytes]:
    """The inodes of its sockets."""
    folder = f"{_PROC}/{process}/fd"
    for name in _names(Path(folder)):
        with contextlib.suppress(OSError):
            target = os.readlink(f"{folder}/{name}")  # noqa: PTH115  (a Path takes longer than the call)
            if target.startswith(_SOCKET):
                yield target[len(_SOCKET) : -1].encode()


def _outgoing(owners: dict[bytes, int]) -> Iterator[Connection]:
    """The tables' lines of these sockets that have another end, without those that somebody else opened to us."""
    for table in _TABLES:
        lines = [line.split() for line in _octets(_PROC / "self" / "net" / table).splitlines()[1:]]
        served = {_port(fields[1]) for fields in lines if fields[3] == _LISTENS}
        for fields in lines:
            process = owners.get(fields[9])
            if process is None or not _port(fields[2]) or _port(fields[1]) in served:
                continue
            address = _address(fields[2].partition(b":")[0])
            yield Connection(process, table[:3], address, _port(fields[2]))


def _port(end: bytes) -> int:
    return int(end.rpartition(b":")[2], 16)


def _address(digits: bytes) -> Address:
    """An address as the tables write it: words of 32 bits, each in the machine's order of bytes."""
    words = struct.unpack(f">{len(digits) // 8}I", bytes.fromhex(digits.decode()))
    octets = struct.pack(f"={len(words)}I", *words)
    address = parse_address(socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, octets))
    assert address is not None
    return address


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []  # ended meanwhile, or another user's


def _octets(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
