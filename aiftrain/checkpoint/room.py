"""Room for a checkpoint before any of it is written: a save that cannot end takes no room from others, and no time."""

from __future__ import annotations

from collections.abc import Iterator

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.errors import MachineError
from aiftrain.run.room import existing, rooms

_BESIDES = 1 << 20  # bytes of manifest and custody
_FILES = 6  # the folder, the manifest and the file that is renamed to it, and what is attached


def make_room(catalog: Catalog, size: int, shards: int, keep_last: int, keep_every: int | None) -> list[int]:
    """Have room for a checkpoint of so many bytes and shards; the steps that retention has removed for it.

    Where there is too little, what was interrupted goes first, then the checkpoints that would go after this save;
    the newest whole one never does. MachineError where that is not enough.
    """
    if not _lacks(catalog, size, shards):
        return []
    catalog.remove_incomplete()
    removed = catalog.retain(max(1, keep_last - 1), keep_every) if _lacks(catalog, size, shards) else []
    if lacking := _lacks(catalog, size, shards):
        advice = (
            "make room there, or storage.path=<a folder with more of it>; nothing was written, and what is saved stays"
        )
        raise MachineError(f"no room for the next checkpoint in {catalog.folder}: {'; '.join(lacking)}. {advice}")
    return removed


def _lacks(catalog: Catalog, size: int, shards: int) -> list[str]:
    return list(_shortages(catalog, size + _BESIDES, shards + _FILES))


def _shortages(catalog: Catalog, octets: int, files: int) -> Iterator[str]:
    with machine_errors("read", catalog.folder):
        for room in rooms(existing(catalog.folder)):
            if room.octets is not None and room.octets < octets:
                yield f"{room.limit} leaves {room.octets / 1e9:,.3f} GB, and it takes {octets / 1e9:,.3f}"
            if room.files is not None and room.files < files:
                yield f"{room.limit} leaves {room.files:,} files, and it takes {files:,}"
