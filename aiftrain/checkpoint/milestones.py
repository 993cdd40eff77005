"""milestones.json beside the checkpoints, at home or in an archive: steps that neither retention nor prune removes."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from aiftrain.checkpoint.digested import first_fault
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.stores.base import Store
from aiftrain.errors import DamagedError
from aiftrain.run.base import Strict
from aiftrain.run.durable import replace_text

FORMAT = 1
NAME = "milestones.json"


class _Document(Strict):
    format: int = FORMAT
    milestones: dict[int, str] = {}


def parse_milestones(content: bytes, where: str) -> dict[int, str]:
    """Steps, and what they are called. DamagedError where `content` is not what was written."""
    try:
        return _Document.model_validate_json(content).milestones
    except ValidationError as error:
        raise DamagedError(f"{where} is damaged: {first_fault(error)}") from error


def read_milestones(folder: Path) -> dict[int, str]:
    """Those at home."""
    file = folder / NAME
    with machine_errors("read", file):
        return parse_milestones(file.read_bytes(), str(file)) if file.exists() else {}


def write_milestones(folder: Path, milestones: dict[int, str]) -> None:
    with machine_errors("write", folder / NAME):
        replace_text(folder / NAME, _text(milestones))


def read_milestones_away(store: Store, lineage: str) -> dict[int, str]:
    """Those of a run in an archive."""
    name = f"{lineage}/{NAME}"
    if store.entry(name) is None:
        return {}
    return parse_milestones(b"".join(store.blocks(name)), f"{store.address}/{name}")


def write_milestones_away(store: Store, lineage: str, milestones: dict[int, str]) -> None:
    content = _text(milestones).encode()
    store.write(f"{lineage}/{NAME}", [content], len(content))


def _text(milestones: dict[int, str]) -> str:
    return json.dumps(_Document(milestones=dict(sorted(milestones.items()))).model_dump(mode="json"), indent=2) + "\n"
