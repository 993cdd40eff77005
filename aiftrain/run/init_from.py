"""Where the first weights of a run come from: a folder with published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from aiftrain.run.base import Strict


class StartingFile(Strict):
    """A file in the folder: bytes, and SHA-256 in hexadecimal."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class InitSpec(Strict):
    """A folder on this machine with Hugging Face safetensors, config.json and tokenizer; nothing is ever downloaded.

    `init_from=FOLDER` is short for its path. `files` are filled in: what was in it when the run was planned.
    """

    path: str
    files: dict[str, StartingFile] = {}

    @model_validator(mode="before")
    @classmethod
    def _of_path(cls, given: Any) -> Any:
        return {"path": given} if isinstance(given, str) else given

    def identity(self) -> dict[str, object]:
        """What a run that began from these weights is known by. Where they lie is not part of it."""
        digests = {name: file.sha256 for name, file in self.files.items()}
        return {"name": Path(self.path).name, "files": digests}
