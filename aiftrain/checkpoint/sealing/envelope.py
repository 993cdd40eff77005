"""The envelope of a sealed checkpoint, sealed.json: its objects, their digests, and the seal of each.

It is written last and is the commit, as manifest.json is of a plain one. It tells a store what it sees anyway: names,
sizes and digests of ciphertext, the step, and for whom it was sealed. All else is in the manifest, which is sealed.
"""

from __future__ import annotations

import secrets
from pathlib import PurePath
from typing import Literal

from pydantic import Field, model_validator

from aiftrain.checkpoint.digested import Digested
from aiftrain.checkpoint.sealing.seal import Seal
from aiftrain.errors import DamagedError
from aiftrain.run.base import Strict

ENVELOPE = "sealed.json"
SIGNATURE_ENVELOPE = "signature.json"  # of the signature alone (signature.py)
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class SealedFile(Strict):
    """A file `name` of the checkpoint, sealed in the object `stored`, which has `size` bytes of that SHA-256."""

    name: str = Field(pattern=_NAME)
    stored: str = Field(pattern=_NAME)
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    seal: Seal

    @model_validator(mode="after")
    def _fits(self) -> SealedFile:
        if self.size != self.seal.sealed_size:
            raise ValueError(f"{self.stored} has {self.size} bytes, its seal is of {self.seal.sealed_size}")
        return self


class Envelope(Digested):
    """One sealed checkpoint. `context` is its place in an archive, LINEAGE/step-00000100, which the seals bind.

    `manifest` is the manifest's digest: who has that manifest can tell, without a key, that this is its checkpoint.
    `rollbacks`: how often the run had gone back when it was made, so that it can be told whether that made it void.
    `anew`: it was sealed before, and when it was sealed for these recipients its data keys were new.
    """

    format: int = 1
    context: str
    step: int = Field(ge=0)
    manifest: str = Field(pattern=r"^[0-9a-f]{64}$")
    rollbacks: int = Field(0, ge=0)
    anew: Literal[True] | None = None
    recipients: list[str]
    files: list[SealedFile]

    @model_validator(mode="after")
    def _is_consistent(self) -> Envelope:
        names = [file.name for file in self.files]
        if len(set(names)) < len(names):
            raise ValueError("two files have the same name")
        if not self.context.endswith(f"/step-{self.step:08d}"):
            raise ValueError(f"{self.context} is no place of step {self.step}")
        return self

    def file(self, name: str) -> SealedFile:
        """DamagedError where the checkpoint has no such file."""
        for file in self.files:
            if file.name == name:
                return file
        raise DamagedError(f"{self.context} has no file {name}")


def stored_name(name: str) -> str:
    """A name for the sealed form of a file that no other writer has: rank-00000.0123456789abcdef.sealed."""
    return f"{PurePath(name).stem}.{secrets.token_hex(8)}.sealed"
