"""rollbacks.json beside the checkpoints: where the run went back, known before anything else of it is done.

Going back: write rollbacks.json (part, sync, rename); set aside the checkpoints that it makes void; load the older one.
A start after a crash in between finds the file, does the rest, and goes on as the run would have.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.digested import first_fault
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.history import Rollback
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.errors import DamagedError
from aiftrain.run.base import Strict
from aiftrain.run.durable import replace_text

FORMAT = 1
NAME = "rollbacks.json"


class _Document(Strict):
    format: int = FORMAT
    rollbacks: tuple[Rollback, ...] = ()


def read_rollbacks(catalog: Catalog) -> tuple[Rollback, ...]:
    """All rollbacks of the run, oldest first. DamagedError where the file is not what was written."""
    file = _file(catalog)
    with machine_errors("read", file):
        if not file.exists():
            return ()
        content = file.read_bytes()
    return parse_rollbacks(content, str(file))


def parse_rollbacks(content: bytes, file: str) -> tuple[Rollback, ...]:
    """The rollbacks that `content`, found in `file`, tells of. DamagedError where it is not what was written."""
    try:
        return _Document.model_validate_json(content).rollbacks
    except ValidationError as error:
        raise DamagedError(f"{file} is damaged: {first_fault(error)}") from error


def rollbacks_json(rollbacks: tuple[Rollback, ...]) -> str:
    """The text of rollbacks.json."""
    return json.dumps(_Document(rollbacks=rollbacks).model_dump(mode="json"), indent=2) + "\n"


def write_rollbacks(catalog: Catalog, rollbacks: tuple[Rollback, ...]) -> None:
    """From here on the newest of them is a fact, whatever happens."""
    with machine_errors("write", _file(catalog)):
        replace_text(_file(catalog), rollbacks_json(rollbacks))


def set_void_aside(catalog: Catalog) -> list[int]:
    """Rename the checkpoints that the run went back from; their steps. They no longer count, and nothing is lost."""
    rollbacks = read_rollbacks(catalog)
    entries = catalog.entries() if rollbacks else []  # most runs have none, and many checkpoints
    void = [entry.step for entry in entries if is_void(entry.manifest, rollbacks)]
    for step in void:
        catalog.set_aside(step, "void")
    return void


def is_void(manifest: Manifest, rollbacks: tuple[Rollback, ...]) -> bool:
    """Whether the run went back to before this checkpoint after it was made."""
    return went_back_from(manifest.step, known_rollbacks(manifest), rollbacks)


def known_rollbacks(manifest: Manifest) -> int:
    """How often the run had gone back when a checkpoint was made."""
    return len(manifest.guard.rollbacks) if manifest.guard else 0


def went_back_from(step: int, known: int, rollbacks: tuple[Rollback, ...]) -> bool:
    """Whether the run went back to before a checkpoint of `step`, which was made after `known` of its rollbacks."""
    return any(step > later.to_step for later in rollbacks[known:])


def _file(catalog: Catalog) -> Path:
    return catalog.folder / NAME
