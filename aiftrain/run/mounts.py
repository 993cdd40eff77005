"""Which file system a folder is on. Linux."""

from __future__ import annotations

import contextlib
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")


def file_system(folder: Path, table: Path = MOUNTS) -> tuple[str, str]:
    """Where the file system of `folder` is mounted, and its kind, such as ext4 or lustre. OSError as it comes."""
    text = table.read_text(encoding="utf-8", errors="surrogateescape")
    mounts = [(Path(words[1].replace(r"\040", " ")), words[2]) for words in map(str.split, text.splitlines())]
    around = [(mount, kind) for mount, kind in mounts if folder.resolve().is_relative_to(mount)]
    mount, kind = max(reversed(around), key=lambda each: len(each[0].parts))  # of equal ones the last hides the others
    return str(mount), kind


def fuse_program(folder: Path, table: Path = MOUNTS) -> str | None:
    """The FUSE program that `folder` is a file system of, such as sshfs; None: it is one of the kernel's."""
    with contextlib.suppress(OSError, ValueError):
        kind = file_system(folder, table)[1]
        if kind == "fuse" or kind.startswith("fuse."):
            return kind.removeprefix("fuse.")
    return None
