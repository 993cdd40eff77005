"""Quotas on a file system: what `lfs quota` (Lustre) or `quota` (others) says that a user, group or project may add.

Both print, for each owner, a line in the same columns (lfs-quota(1) of Lustre, quota(1) of the Linux DiskQuota tools):

    Disk quotas for prj 200020 (pid 200020):
         Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace
           /scratch 1234567       0 5242880       -    5678       0 1000000       -

`kbytes` and `files` are used; `quota` is the limit that may be exceeded for a while, `limit` the one that may not, and
0 is none. A number with a star is over its limit, one in brackets is not exact. A long name has a line of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aiftrain.errors import MachineError
from aiftrain.run.asking import ask
from aiftrain.run.mounts import MOUNTS, file_system

PATIENCE = 2  # seconds: servers of quotas may hang, and launches do not wait for them
_OF_QUOTA = ("ext4", "xfs", "nfs", "nfs4")  # file systems that quota(1) asks
_OWNER = re.compile(r"^Disk quotas for (\w+) (.+) \(\wid (\d+)\):", re.MULTILINE)
_USED = r"(\[?\d+\]?\*?)"
_ROW = re.compile(rf"\s{_USED}\s+(\d+)\s+(\d+)\s+\S+\s+{_USED}\s+(\d+)\s+(\d+)\s+\S+")


@dataclass(frozen=True)
class Room:
    """What may still be added, and by whose limit. None: no limit is known."""

    octets: int | None
    files: int | None
    limit: str


def quotas(folder: Path, mounts: Path = MOUNTS) -> list[Room]:
    """The room that quotas leave in `folder`, which exists. Empty where there are none, or nobody tells."""
    try:
        return list(_ask(folder, mounts))
    except (MachineError, OSError):
        return []


def read_quotas(text: str) -> Iterator[tuple[str, int, Room]]:
    """Of each owner in the answer of lfs or quota: kind (usr, grp, prj, ...), number, room. What is not understood
    is left out."""
    owners = list(_OWNER.finditer(text))
    ends = [*(owner.start() for owner in owners[1:]), len(text)]
    for owner, end in zip(owners, ends, strict=False):  # without an owner there is one end too many
        row = _ROW.search(text, owner.end(), end)
        if row is not None:
            kib, files = _left(*row.group(1, 2, 3)), _left(*row.group(4, 5, 6))
            limit = f"the quota of {owner[1]} {owner[2]}"
            yield owner[1], int(owner[3]), Room(None if kib is None else kib * 1024, files, limit)


def _ask(folder: Path, mounts: Path) -> Iterator[Room]:
    mount, kind = file_system(folder, mounts)
    if kind == "lustre" and shutil.which("lfs"):
        questions = [["lfs", "quota", *owner, str(folder)] for owner in _owners_on_lustre(folder)]
    elif kind in _OF_QUOTA and shutil.which("quota"):
        questions = [["quota", "-wp", owner, "-f", mount] for owner in ("-u", "-g")]
    else:
        return
    group = group_of_files(folder)
    for words in questions:
        for owner, number, room in read_quotas(_said(*words)):
            if not owner.startswith("gr") or number == group:  # quota tells of all groups that the user is in
                yield room


def _owners_on_lustre(folder: Path) -> Iterator[tuple[str, str]]:
    yield "-u", str(os.getuid())
    yield "-g", str(group_of_files(folder))
    project = _said("lfs", "project", "-d", str(folder)).split()[:1]  # 200020 P /scratch/folder
    if project and project[0].isdigit() and project[0] != "0":
        yield "-p", project[0]


def group_of_files(folder: Path) -> int:
    """The group that new files in `folder` get: the folder's where it says so, or the user's own."""
    status = folder.stat()
    return status.st_gid if status.st_mode & stat.S_ISGID else os.getgid()


def _said(*command: str) -> str:
    """Its exit code is not looked at: that of `quota` only tells whether a limit is exceeded."""
    return ask(("env", "LC_ALL=C", *command), patience=PATIENCE).stdout


def _left(used: str, soft: str, hard: str) -> int | None:
    """The exact limit decides; where there is none, the one that may be exceeded for some days."""
    limit = int(hard) or int(soft)
    return None if not limit or used.startswith("[") else max(0, limit - int(used.rstrip("*")))
