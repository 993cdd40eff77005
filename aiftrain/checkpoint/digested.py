"""JSON documents that end with the digest of their content, so that an edited one is recognised."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

from pydantic import ValidationError

from aiftrain.errors import DamagedError
from aiftrain.run.base import Strict

T = TypeVar("T", bound="Digested")


class Digested(Strict):
    """The base of such a document. `format` grows with each change that older readers would misread."""

    format: int

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON (keys sorted, no white space) of all fields."""
        canonical = json.dumps(self._document(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> str:
        """The text of the file, the digest at its end."""
        document = self._document() | {"digest": self.digest}
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def _document(self) -> dict[str, Any]:
        """A field that a run does without is not written: documents from before it existed stay what they are."""
        return {name: value for name, value in self.model_dump(mode="json").items() if value is not None}


def parse(content: bytes, where: str, model: type[T]) -> T:
    """The document in `content`, which was found at `where`. DamagedError unless it is, byte for byte, as written."""
    try:
        document = json.loads(content)
    except ValueError as error:  # broken UTF-8 is a ValueError too
        raise DamagedError(f"{where} is damaged: no valid JSON ({error})") from error
    found = document.get("format") if isinstance(document, dict) else None
    known = model.model_fields["format"].default
    if found != known:
        raise DamagedError(f"{where} has format {found!r}; this aiftrain reads format {known}")
    digest = document.pop("digest", None)
    try:
        read = model.model_validate(document)
    except ValidationError as error:
        raise DamagedError(f"{where} is damaged: {first_fault(error)}") from error
    if digest != read.digest:
        raise DamagedError(f"{where} is damaged: it states digest {digest}, its content has {read.digest}")
    if content != read.to_json().encode():
        raise DamagedError(f"{where} is damaged: its content is right, its layout is not what was written")
    return read


def first_fault(error: ValidationError) -> str:
    """The first thing that pydantic found wrong with a document, on one line."""
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])  # nowhere, where it is no JSON at all
    return f"{where}: {fault['msg']}" if where else fault["msg"]
