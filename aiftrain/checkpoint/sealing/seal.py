"""The seal of a file: how its content was cut and enciphered, and its data key, wrapped for the recipients.

AES-256-GCM in segments after the STREAM construction, as age has it (https://c2sp.org/age, section Payload): the
nonce is the segment's number and whether it is the last one, so that none can be lost, moved, repeated or added. Each
key enciphers one file. The whole format stands in docs/sealing.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Literal

from pydantic import Field, field_validator

from aiftrain.run.base import Strict

SEGMENT = 1 << 20  # bytes; larger ones are no faster (docs/sealing.md), smaller ones make small reads cheaper
TAG = 16  # bytes that GCM adds to a segment
KEY = 32  # bytes of a data key


class Seal(Strict):
    """What opens one sealed file, besides an identity. `size` and `segment` are bytes of plain content.

    `key` is an age file with the data key, in base64.
    """

    format: Literal[1] = 1
    segment: int = Field(SEGMENT, ge=1, le=1 << 26)
    size: int = Field(ge=0)
    key: str

    @field_validator("key")
    @classmethod
    def _is_canonical(cls, key: str) -> str:
        if base64.b64encode(base64.b64decode(key, validate=True)).decode() != key:
            raise ValueError("base64 that no encoder writes")
        return key

    @property
    def wrapped(self) -> bytes:
        """The age file."""
        return base64.b64decode(self.key)

    @property
    def segments(self) -> int:
        """How many there are; an empty file has one, which is empty."""
        return max(1, -(-self.size // self.segment))

    @property
    def sealed_size(self) -> int:
        """Bytes of the sealed file."""
        return self.size + TAG * self.segments

    def nonce(self, index: int) -> bytes:
        """Of segment `index`: 11 bytes big-endian, and 1 for the last segment or 0."""
        return index.to_bytes(11, "big") + bytes([index == self.segments - 1])

    def associated_data(self, name: str, context: str) -> bytes:
        """What every segment is bound to: the file's name, the checkpoint it belongs to, and how it was cut."""
        bound = {
            "context": context, "format": self.format, "name": name, "segment": self.segment, "size": self.size
        }  # fmt: skip
        return hashlib.sha256(json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()).digest()
