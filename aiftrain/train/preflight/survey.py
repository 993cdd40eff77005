"""What one rank sees of its node: cores, domains, device, memory, network, folders. Looks only, and judges nothing."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from aiftrain.run.machine import Hardware
from aiftrain.run.rank import Rank
from aiftrain.run.reading import text_of
from aiftrain.train.preflight.finding import runs_of

NETWORK_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "NCCL_IB_HCA", "NCCL_IB_DISABLE")

_GIB = 2**30
_SYS = Path("/sys")


@dataclass(frozen=True)
class DeviceSight:
    """This rank's GPU. `identity` tells it from all others of the node; `trouble` is what the driver complained of."""

    visible: int = 0
    name: str = ""
    identity: str = ""
    address: str = ""  # on the PCI bus: 0000:c1:00.0
    numa: int | None = None
    total_gib: float = 0.0
    free_gib: float = 0.0
    trouble: str = ""


@dataclass(frozen=True)
class FolderSight:
    """Room where files go. `files` is how many more fit; None: this file system does not count them."""

    path: str
    free: int  # bytes
    files: int | None
    writable: bool


@dataclass(frozen=True)
class Sight:
    """All of it. Lists of cores are written as taskset writes them, so that thousands of ranks' sights stay small."""

    rank: int
    local_rank: int
    host: str
    cores: str  # that this process may run on
    online: str  # that the node has
    numa: dict[str, str]  # domain -> its cores
    interfaces: dict[str, str]  # name -> up, down, unknown
    cards: dict[str, str]  # InfiniBand and RoCE: name -> ACTIVE, DOWN, ...
    variables: dict[str, str]
    memory_gib: float | None  # available
    shared_memory: int  # bytes free in /dev/shm
    device: DeviceSight | None  # None: the run is for CPUs
    folders: list[FolderSight] = field(default_factory=list)

    @classmethod
    def read(cls, document: dict[str, Any]) -> Sight:
        """What `dataclasses.asdict` made of a Sight."""
        device, folders = document["device"], document["folders"]
        parts = {"device": device and DeviceSight(**device), "folders": [FolderSight(**each) for each in folders]}
        return cls(**document | parts)


def look(rank: Rank, hardware: Hardware, folders: list[Path], environ: Mapping[str, str] = os.environ) -> Sight:
    """This node as this rank sees it. `folders` are looked at by the first rank of each node only."""
    first = rank.local_rank == 0
    return Sight(
        rank=rank.rank,
        local_rank=rank.local_rank,
        host=socket.gethostname(),
        cores=runs_of(os.sched_getaffinity(0)),
        online=text_of(_SYS / "devices/system/cpu/online").strip(),
        numa=numa_domains(_SYS),
        interfaces=interfaces(_SYS),
        cards=cards(_SYS),
        variables={name: environ[name] for name in NETWORK_VARIABLES if name in environ},
        memory_gib=_memory_available(),
        shared_memory=_free(Path("/dev/shm")),
        device=None if hardware.is_cpu else _device(rank.local_rank),
        folders=[_folder(path) for path in (*folders, Path(tempfile.gettempdir()))] if first else [],
    )


def numa_domains(sys: Path) -> dict[str, str]:
    """Domain -> its cores; those that have none, such as a GPU's memory, are left out."""
    files = sorted(sys.glob("devices/system/node/node[0-9]*/cpulist"))
    found = {file.parent.name.removeprefix("node"): text_of(file).strip() for file in files}
    return {domain: cores for domain, cores in found.items() if cores}


def interfaces(sys: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """Network interface -> its state. Loopback has none, and says `unknown`.

    The names are the kernel's word to this process: /sys may be that of another network namespace.
    """
    there = [name for _, name in socket.if_nameindex()] if names is None else names
    return {name: text_of(sys / "class/net" / name / "operstate").strip() or "unknown" for name in there}


def cards(sys: Path) -> dict[str, str]:
    """InfiniBand or RoCE card -> the state of its best port."""
    return {folder.name: _port_state(folder) for folder in sorted(sys.glob("class/infiniband/*"))}


def device_numa(sys: Path, address: str) -> int | None:
    """The NUMA domain that a device hangs on; None where the firmware does not tell (-1) or there is no such device."""
    text = text_of(sys / "bus/pci/devices" / address / "numa_node").strip()
    return int(text) if text.isdecimal() else None


def _port_state(card: Path) -> str:
    states = [text_of(port).partition(":")[2].strip() for port in card.glob("ports/*/state")]  # 4: ACTIVE
    return "ACTIVE" if "ACTIVE" in states else next(iter(states), "without a port")


def _device(local_rank: int) -> DeviceSight:
    """Asking for the memory makes the device's context, which the run needs anyway. A broken device says so here."""
    visible = 0
    try:
        visible = torch.cuda.device_count()
        if visible == 0:
            return DeviceSight()
        number = local_rank % visible
        properties = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
    except RuntimeError as error:
        return DeviceSight(visible=visible, trouble=str(error).partition("\n")[0])
    address = device_address(properties)
    return DeviceSight(
        visible=visible,
        name=properties.name,
        identity=device_identity(properties) or str(number),
        address=address,
        numa=device_numa(_SYS, address) if address else None,
        total_gib=total / _GIB,
        free_gib=free / _GIB,
    )


def device_identity(properties: Any) -> str:
    """What tells a device from all others of a node: parts of one have its address, and a driver may give one UUID to
    both halves of a card."""
    return " ".join(filter(None, (str(getattr(properties, "uuid", "")), device_address(properties))))


def device_address(properties: Any) -> str:
    """Of a device, by what torch says of it: as /sys/bus/pci writes it, or nothing where this torch does not tell."""
    parts: list[Any] = [getattr(properties, f"pci_{part}_id", None) for part in ("domain", "bus", "device")]
    return "" if None in parts else "{:04x}:{:02x}:{:02x}.0".format(*map(int, parts))


def _memory_available() -> float | None:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text_of(Path("/proc/meminfo")), re.MULTILINE)
    return int(found[1]) * 1024 / _GIB if found else None


def _folder(path: Path) -> FolderSight:
    """Of `path`, or of what is there nearest above it."""
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    status = os.statvfs(there)
    files = status.f_favail if status.f_files else None
    return FolderSight(str(there), status.f_bavail * status.f_frsize, files, os.access(there, os.W_OK))


def _free(folder: Path) -> int:
    try:
        status = os.statvfs(folder)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize
