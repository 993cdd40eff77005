"""Room in a folder: bytes and files, of its file system and of each quota on it."""

from __future__ import annotations

import os
from pathlib import Path

from aiftrain.run.quota import Room, quotas


def existing(folder: Path) -> Path:
    """The folder itself, or what is there nearest above it."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def rooms(folder: Path) -> list[Room]:
    """Everything that limits what may be added to `folder`, which exists. OSError as it comes."""
    status = os.statvfs(folder)
    files = status.f_favail if status.f_files else None  # 0: this file system does not count them
    return [Room(status.f_bavail * status.f_frsize, files, "its file system"), *quotas(folder)]
