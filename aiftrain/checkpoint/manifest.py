"""The manifest of a checkpoint: what it holds, and the SHA-256 digest of each of its files.

It is written last, and a folder is a checkpoint if and only if it has one. Its own digest covers everything
else in it, so that an edited manifest is recognised just like an edited shard.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from aiftrain.checkpoint.digested import Digested, parse
from aiftrain.checkpoint.history import History
from aiftrain.checkpoint.loss_scale import LossScale
from aiftrain.checkpoint.provenance import DataRecord, LayoutRecord, StorageRecord
from aiftrain.run.base import Strict

FORMAT = 1
MANIFEST = "manifest.json"


class FileRecord(Strict):
    """A file as it was written: its name inside the checkpoint, bytes, and SHA-256 in hexadecimal."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(Digested):
    """One complete checkpoint.

    `tokens` and `sources` count what was trained on so far; `time` is in unix seconds; `identity` is
    RunSpec.identity(), what may not change on resumption; `shapes` are the full shapes of the parameters; `guard`
    is missing where none watched the run, `loss_scale` where no loss was scaled.

    `parent` is the digest of the manifest that this one goes on from: saved before it, or resumed from, or gone back
    to. `weights` is a digest over the weights in all files, which two saves by the same ranks have alike where no
    weight changed. Manifests from before these fields lack them, and are valid. `holds` is missing where it holds all
    that a run goes on from.
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
    loss_scale: LossScale | None = None
    parent: str | None = None
    weights: str | None = None
    layout: LayoutRecord | None = None
    data: DataRecord | None = None
    storage: StorageRecord | None = None
    holds: Literal["weights"] | None = None

    @property
    def size(self) -> int:
        """Bytes of all files, the manifest itself left out."""
        return sum(file.size for file in self.files)

    @property
    def shards(self) -> list[FileRecord]:
        """The files that hold tensors; beside them are attachments (attachments.py)."""
        return [file for file in self.files if file.name.endswith(".safetensors")]

    def is_stuck_at(self, earlier: Manifest) -> bool:
        """Whether no weight is another than in `earlier`, though the optimizer has made steps since."""
        same = self.weights is not None and self.weights == earlier.weights
        return same and self.optimizer_step > earlier.optimizer_step


def read_manifest(file: Path) -> Manifest:
    """The manifest in `file`. DamagedError where it is not, byte for byte, what was written; OSError as it comes."""
    return parse(file.read_bytes(), str(file), Manifest)
