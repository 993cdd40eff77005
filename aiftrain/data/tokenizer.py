"""Tokenizers: a tokenizer.json (Hugging Face `tokenizers`) or a SentencePiece .model file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import tokenizers

from aiftrain.data.files import optional_module, reading
from aiftrain.errors import UserError

END_OF_DOCUMENT = "<|endoftext|>"

# what known models call the token that ends a document, where no tokenizer_config.json says it
_END_NAMES = (END_OF_DOCUMENT, "</s>", "<eos>", "<|end_of_text|>", "<|end▁of▁sentence|>", "[EOS]", "<EOD>", "<|eod|>")


class Tokenizer(Protocol):
    """Text to numbers and back. Text that looks like a special token is encoded as plain text."""

    path: Path
    vocab_size: int  # one more than the largest number it may give
    eos_id: int  # ends a document

    def encode(self, text: str) -> list[int]: ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer in a file ending in .json or .model. UserError where there is none or it ends no documents."""
    file = Path(path)
    if file.is_dir() and (file / "tokenizer.json").is_file():
        file = file / "tokenizer.json"
    if file.suffix not in (".json", ".model"):
        raise UserError(f"{file} is no tokenizer: give a tokenizer.json or a SentencePiece .model file")
    with reading(file):
        content = file.read_bytes()
    return HuggingFaceTokenizer(file, content) if file.suffix == ".json" else SentencePieceTokenizer(file, content)


class HuggingFaceTokenizer:
    """A tokenizer.json, without the truncation, padding and special tokens that it may ask for."""

    def __init__(self, file: Path, content: bytes) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(content)
        except Exception as error:  # tokenizers raises nothing more special
            raise UserError(f"{file} is no tokenizer.json: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self.path = file
        self.vocab_size = 1 + max(self._tokenizer.get_vocab().values(), default=0)
        self.eos_id = _end_of_document(file, self._tokenizer)

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))


class SentencePieceTokenizer:
    """A SentencePiece .model file; needs the package sentencepiece."""

    def __init__(self, file: Path, content: bytes) -> None:
        library = optional_module("sentencepiece", "sentencepiece", f"the tokenizer {file.name}")
        try:
            self._processor: Any = library.SentencePieceProcessor(model_proto=content)
        except RuntimeError as error:
            raise UserError(f"{file} is no SentencePiece model: {error}") from error
        self.path = file
        self.vocab_size = int(self._processor.vocab_size())
        self.eos_id = int(self._processor.eos_id())
        if self.eos_id < 0:
            raise UserError(f"{file} has no end-of-sentence piece, so nothing could end a document")

    def encode(self, text: str) -> list[int]:
        return list(self._processor.encode(text))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return list(self._processor.encode(list(texts), num_threads=1))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._processor.decode(list(map(int, ids))))


def _end_of_document(file: Path, tokenizer: tokenizers.Tokenizer) -> int:
    """The token named as eos_token in the tokenizer_config.json beside the file, or one of the well-known names."""
    names = [*_configured_end(file.with_name("tokenizer_config.json")), *_END_NAMES]
    numbers = (tokenizer.token_to_id(name) for name in names)
    found = next((number for number in numbers if number is not None), None)
    if found is None:
        raise UserError(f"{file} has no token that ends a document; looked for {', '.join(names)}")
    return int(found)


def _configured_end(config: Path) -> list[str]:
    if not config.is_file():
        return []
    try:
        token = json.loads(config.read_text(encoding="utf-8")).get("eos_token")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"cannot read {config}: {error}") from error
    name = token.get("content") if isinstance(token, dict) else token
    return [name] if isinstance(name, str) else []
