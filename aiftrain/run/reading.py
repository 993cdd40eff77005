"""Small files that a machine may have or not: those of the kernel, of Slurm, of the resolver."""

from __future__ import annotations

from pathlib import Path


def text_of(file: Path) -> str:
    """Its text; nothing where it is not there, or hidden from this user."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
