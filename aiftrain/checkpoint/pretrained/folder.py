"""A folder as Hugging Face's models come in: config.json, safetensors in one file or several, a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiftrain.checkpoint.tensorfile import Stored, TensorFile
from aiftrain.data.files import reading
from aiftrain.errors import DamagedError, UserError

_CONFIG, _WEIGHTS, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")


@dataclass(frozen=True)
class PretrainedFolder:
    """The folder at `path`. Whatever is wrong with it is a UserError that names the file."""

    path: Path

    def config(self) -> dict[str, Any]:
        """config.json."""
        return _read_json(self.path / _CONFIG)

    def weight_files(self) -> list[Path]:
        """The safetensors files. UserError where there are none, DamagedError where one that the index names is not."""
        if not self.path.is_dir():
            raise UserError(f"{self.path} is no folder: name one with config.json, *.safetensors and tokenizer.json")
        if not (self.path / _INDEX).is_file():
            return [self._single()]
        names = _read_json(self.path / _INDEX).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise UserError(f"{self.path / _INDEX} names no weights: its weight_map is missing or empty")
        files = [self.path / str(name) for name in sorted(set(names.values()))]
        for file in files:
            if not file.is_file():
                raise DamagedError(f"{file} is missing, and {_INDEX} names it")
        return files

    def tokenizer(self, like: Path) -> Path:
        """The tokenizer's file, of the kind that `like` is. UserError where there is none."""
        file = self.path / _TOKENIZERS[like.suffix == ".model"]
        if not file.is_file():
            raise UserError(f"{self.path} has no {file.name}, so nobody can tell which tokens its weights know")
        return file

    def all_files(self) -> list[Path]:
        """All that a run which begins from this folder depends on."""
        others = [self.path / name for name in (_INDEX, *_TOKENIZERS)]
        return [*self.weight_files(), self.path / _CONFIG, *(file for file in others if file.is_file())]

    def _single(self) -> Path:
        file = self.path / _WEIGHTS
        if not file.is_file():
            raise UserError(
                f"{self.path} has neither {_WEIGHTS} nor {_INDEX}: weights in another form (*.bin, *.pth, *.gguf) must "
                "be saved as safetensors first, with transformers' save_pretrained"
            )
        return file


@contextmanager
def opened(files: list[Path]) -> Iterator[dict[str, tuple[TensorFile, Stored]]]:
    """Each tensor of all files, with the file that it is in."""
    streams: list[TensorFile] = []
    try:
        streams += (TensorFile.open(file) for file in files)
        yield {key: (stream, stored) for stream in streams for key, stored in stream.tensors.items()}
    finally:
        for stream in streams:
            stream.close()


def _read_json(file: Path) -> dict[str, Any]:
    with reading(file):
        content = file.read_bytes()
    try:
        document = json.loads(content)
    except ValueError as error:
        raise UserError(f"{file} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise UserError(f"{file} holds no keys and values")
    return document
