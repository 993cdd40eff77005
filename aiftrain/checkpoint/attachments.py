"""What a checkpoint holds besides shards, so that it can be read wherever it is: run.json, data.json, the tokenizer.

They are files of the manifest like any other: carried, verified, sealed and signed with the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from aiftrain.checkpoint.digested import first_fault
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.manifest import FileRecord, Manifest
from aiftrain.data.corpus import PreparedCorpus, PreparedTokenizer
from aiftrain.errors import DamagedError, UserError
from aiftrain.run.spec import RunSpec

RUN, DATA = "run.json", "data.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")

M = TypeVar("M", bound=BaseModel)


def attach(folder: Path, spec: RunSpec, corpus: PreparedCorpus) -> list[FileRecord]:
    """Write them into the folder of a checkpoint, synced. MachineError where the disk fails.

    A tokenizer's file that is gone is left out: no save fails because of it.
    """
    contents = {RUN: spec.model_dump_json(indent=2).encode(), DATA: corpus.model_dump_json(indent=2).encode()}
    with contextlib.suppress(OSError):
        contents[_tokenizer_name(corpus.tokenizer)] = corpus.tokenizer.path.read_bytes()
    return [_write(folder / name, content) for name, content in contents.items()]


def _tokenizer_name(tokenizer: PreparedTokenizer) -> str:
    """The name that transformers knows."""
    return _TOKENIZERS[tokenizer.path.suffix != ".json"]


def _write(file: Path, content: bytes) -> FileRecord:
    with machine_errors("write", file), file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return FileRecord(name=file.name, size=len(content), sha256=hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Attachments:
    """Those of the checkpoint with this manifest, which is at `address`; `blocks` reads a file of it, unverified."""

    address: str
    manifest: Manifest
    blocks: Callable[[FileRecord], Iterator[bytes]]

    def spec(self) -> RunSpec | None:
        """The run as it was when it saved; None of a checkpoint from before they were attached."""
        return self._document(RUN, RunSpec)

    def corpus(self) -> PreparedCorpus | None:
        """The data, and the tokenizer under the path that it had then."""
        return self._document(DATA, PreparedCorpus)

    def bring_tokenizer(self, out: Path) -> Path:
        """Write the tokenizer's file into a folder. UserError where the checkpoint has none."""
        record = next(filter(None, map(self._record, _TOKENIZERS)), None)
        if record is None:
            raise UserError(f"{self.address} has no tokenizer: its file was gone when the checkpoint was saved")
        file = out / record.name
        with machine_errors("write", file):
            file.write_bytes(self._content(record))
        return file

    def _document(self, name: str, model: type[M]) -> M | None:
        record = self._record(name)
        if record is None:
            return None
        try:
            return model.model_validate_json(self._content(record))
        except ValidationError as error:
            raise DamagedError(f"{self.address}/{name} cannot be read: {first_fault(error)}") from error

    def _record(self, name: str) -> FileRecord | None:
        return next((record for record in self.manifest.files if record.name == name), None)

    def _content(self, record: FileRecord) -> bytes:
        """All of a small file. DamagedError where it is not what was written."""
        content = b"".join(self.blocks(record))
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise DamagedError(f"{self.address}/{record.name} is damaged: its SHA-256 is not {record.sha256}")
        return content
