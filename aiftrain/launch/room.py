"""Room for checkpoints where they will lie: bytes and files, of the file system and of each quota on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.errors import Problem
from aiftrain.plan.memory import checkpoint_bytes
from aiftrain.run.folder import RunFolder
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.quota import Room
from aiftrain.run.room import existing, rooms
from aiftrain.run.spec import RunSpec

_GIB = 2**30


def room_problems(spec: RunSpec, layout: ParallelLayout, folder: RunFolder) -> Iterator[Problem]:
    """Too little room for the last checkpoints and the one being written, or no leave to write there."""
    catalog = Catalog.of_run(folder, spec)
    there = existing(catalog.folder)
    if not may_write(there):
        fits = "storage.path=<a folder that you may write>"
        yield Problem("storage.path", f"{there} cannot be written", fits)
        return
    more = _checkpoints_to_come(spec, len(catalog.steps()))
    each_bytes, each_files = checkpoint_bytes(spec), layout.world_size + 5  # manifest, attachments, and the folder
    for room in rooms(there):
        if room.octets is not None and room.octets < more * each_bytes:
            left, need = f"{room.octets / _GIB:,.1f} GiB", f"{more * each_bytes / _GIB:,.1f} GiB"
            yield _too_little(spec, there, room, left, need, more, room.octets // each_bytes)
        if room.files is not None and room.files < more * each_files:
            left, need = f"{room.files:,} files", f"{more * each_files:,}"
            yield _too_little(spec, there, room, left, need, more, room.files // each_files)


def may_write(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _checkpoints_to_come(spec: RunSpec, have: int) -> int:
    """More than lie there now: `keep_last`, and the one that is written before the oldest goes."""
    saves = -(-spec.timeline.total_steps // spec.storage.save_every)
    return max(0, min(spec.storage.keep_last + 1, saves) - have)


def _too_little(spec: RunSpec, there: Path, room: Room, left: str, need: str, more: int, fit: int) -> Problem:
    found = f"{room.limit} leaves {left} in {there}, and {more} checkpoints more take {need}"
    fewer = spec.storage.keep_last - (more - fit)
    fits = f"storage.keep_last={fewer}, or " if fewer > 0 else ""
    return Problem("storage.keep_last", found, f"{fits}make room there, or storage.path=<a folder with more of it>")
