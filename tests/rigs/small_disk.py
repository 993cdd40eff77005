"""A file system of a few bytes or files, in memory. Needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root: sudo -E pytest ...")


@contextmanager
def small_disk(folder: Path, size: int, files: int = 10_000) -> Iterator[Path]:
    """`folder`, which it makes, with room for `size` bytes."""
    folder.mkdir()
    options = f"size={size},nr_inodes={files}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
