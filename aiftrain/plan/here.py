"""This machine: which factory it belongs to, and what node it is."""

from __future__ import annotations

import platform
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiftrain.plan.groups import Groups
from aiftrain.run.memory import total_memory
from aiftrain.run.process import usable_cores
from aiftrain.run.reading import text_of

LOCAL = "local"

_SLURM_CONF = Path("/etc/slurm/slurm.conf")
_FAST_BF16 = {"amx_bf16", "avx512_bf16"}  # x86 instruction sets that multiply bf16 faster than fp32


@dataclass(frozen=True)
class Node:
    """The machine under this process, as far as its cgroup and affinity let it use it."""

    cores: int
    memory_gib: float | None
    arch: str
    bf16: bool


def this_node() -> Node:
    """What this process may use."""
    return Node(usable_cores(), _memory_gib(), platform.machine(), bool(_FAST_BF16 & _cpu_flags()))


def find_factory(
    groups: Groups, environ: Mapping[str, str], *, host: str | None = None, slurm_conf: Path = _SLURM_CONF
) -> str:
    """The factory whose cluster name or host names are this machine's, or `local`."""
    cluster = environ.get("SLURM_CLUSTER_NAME") or _cluster_name(slurm_conf)
    host = host or socket.gethostname().split(".")[0]
    for name in groups.choices("factory"):
        factory = groups.read("factory", name)
        if cluster and cluster in factory.get("cluster_names", ()):
            return name
        if any(re.search(pattern, host) for pattern in factory.get("host_patterns", ())):
            return name
    return LOCAL


def _cluster_name(slurm_conf: Path) -> str | None:
    text = text_of(slurm_conf)
    found = re.search(r"^\s*ClusterName\s*=\s*(\S+)", text, re.IGNORECASE | re.MULTILINE)
    return found[1] if found else None


def _memory_gib() -> float | None:
    octets = total_memory()
    return None if octets is None else round(octets / 2**30, 1)


def _cpu_flags() -> set[str]:
    found = re.search(r"^flags\s*:(.*)$", text_of(Path("/proc/cpuinfo")), re.MULTILINE)
    return set(found[1].split()) if found else set()
