"""The manifest of a checkpoint: what it holds, and the SHA-256 digest of each of its files.

It is written last, and a folder is a checkpoint if and only if it has one. Its own digest covers everything
else in it, so that an edited manifest is recognised just like an edited shard.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from aiftrain.checkpoint.history import History
from aiftrain.errors import DamagedError
from aiftrain.run.base import Strict

FORMAT = 1
MANIFEST = "manifest.json"


class FileRecord(Strict):
    """A file as it was written: its name inside the checkpoint, bytes, and SHA-256 in hexadecimal."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(Strict):
    """One complete checkpoint.

    `tokens` and `sources` count what was trained on so far; `time` is in unix seconds; `identity` is
    RunSpec.identity(), what may not change on resumption; `shapes` are the full shapes of the parameters; `guard`
    is missing where none watched the run.
    """

    format: int = FORMAT
    step: int = Field(ge=0)
    optimizer_step: int = Field(ge=0)
    tokens: int = Field(ge=0)
    sources: dict[str, int]
    time: float
    attempt: int = Field(ge=0)
    world_size: int = Field(ge=1)
    run_digest: str
    identity: dict[str, object]
    versions: dict[str, str]
    shapes: dict[str, list[int]]
    files: list[FileRecord]
    guard: History | None = None

    @property
    def size(self) -> int:
        """Bytes of all files, the manifest itself left out."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON (keys sorted, no white space) of all fields."""
        canonical = json.dumps(self._document(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> str:
        """The text of manifest.json, the digest at its end."""
        document = self._document() | {"digest": self.digest}
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def _document(self) -> dict[str, Any]:
        """A field that a run does without is not written: manifests from before it existed stay what they are."""
        return {name: value for name, value in self.model_dump(mode="json").items() if value is not None}


def read_manifest(file: Path) -> Manifest:
    """The manifest in `file`. DamagedError where it is not, byte for byte, what was written; OSError as it comes."""
    content = file.read_bytes()
    try:
        document = json.loads(content)
    except ValueError as error:  # broken UTF-8 is a ValueError too
        raise DamagedError(f"{file} is damaged: no valid JSON ({error})") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise DamagedError(f"{file} has format {found!r}; this aiftrain reads format {FORMAT}")
    digest = document.pop("digest", None)
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        raise DamagedError(f"{file} is damaged: {first_fault(error)}") from error
    if digest != manifest.digest:
        raise DamagedError(f"{file} is damaged: it states digest {digest}, its content has {manifest.digest}")
    if content != manifest.to_json().encode():
        raise DamagedError(f"{file} is damaged: its content is right, its layout is not what was written")
    return manifest


def first_fault(error: ValidationError) -> str:
    """The first thing that pydantic found wrong with a document, on one line."""
    fault = error.errors()[0]
    return f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
