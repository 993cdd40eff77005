"""What kind of file system a folder is on, and what follows for checkpoints: nothing in memory, few stripes on Lustre.

Sources: docs.lumi-supercomputer.eu/storage/parallel-filesystems/lustre (a file of each rank: one stripe; more for what
is large), lfs-setstripe(1). VAST is mounted as NFS and has no stripes to set.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from aiftrain.run.mounts import MOUNTS, file_system

_GIB = 2**30
# Bytes of a shard from which on it gets so many stripes. One storage target writes some GB/s at best; a shard of tens
# of GB is worth several, and all ranks together have many shards already.
_STRIPES = ((64 * _GIB, 8), (16 * _GIB, 4), (0, 1))
_TITLES = {
    "lustre": "Lustre",
    "gpfs": "GPFS (Storage Scale)",
    "nfs": "NFS",
    "nfs4": "NFS",
    "ceph": "CephFS",
    "fuse.ceph": "CephFS",
    "fuse.ceph-fuse": "CephFS",
    "beegfs": "BeeGFS",
    "tmpfs": "tmpfs, the node's memory",
    "ramfs": "ramfs, the node's memory",
}
_LFS_SECONDS = 30


@dataclass(frozen=True)
class FileSystem:
    """`kind` as the kernel names it; `mount`: where it is mounted."""

    mount: str
    kind: str

    @classmethod
    def of(cls, folder: Path, table: Path = MOUNTS) -> FileSystem:
        """That of a folder, there or not. `unknown` where the system does not tell."""
        try:
            return cls(*file_system(folder, table))
        except (OSError, ValueError):
            return cls("", "unknown")

    @property
    def is_memory(self) -> bool:
        """Whether what is written there is lost with the node."""
        return self.kind in ("tmpfs", "ramfs")

    @property
    def warning(self) -> str:
        """What is wrong with keeping checkpoints there; nothing for most."""
        if not self.is_memory:
            return ""
        return f"what lies in {self.mount} takes the node's memory, and does not outlive it: storage.path=<on disks>"

    def __str__(self) -> str:
        return f"{_TITLES.get(self.kind, self.kind)}{f' at {self.mount}' if self.mount else ''}"


def stripes(shard: int) -> int:
    """How many storage targets of Lustre a shard of so many bytes lies on."""
    return next(count for size, count in _STRIPES if shard >= size)


def make_striped(folder: Path, shard: int, table: Path = MOUNTS) -> int | None:
    """Make a folder on Lustre whose files lie on as many targets as shards of `shard` bytes want; how many those are.

    None, and no folder, on another file system or without `lfs`. None where `lfs` fails: that costs only speed.
    OSError where the folder cannot be made.
    """
    program = shutil.which("lfs")
    if program is None or FileSystem.of(folder, table).kind != "lustre":
        return None
    folder.mkdir(parents=True)
    count = stripes(shard)
    command = [program, "setstripe", "--stripe-count", str(count), str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_LFS_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return count if done.returncode == 0 else None
