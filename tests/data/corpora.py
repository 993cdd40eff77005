"""Small corpora for the tests of the data side."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiftrain.data.spans import Span
from aiftrain.run.corpus import DataSpec, SourceSpec, TokenizerSpec

_WORDS = (
    "der",
    "die",
    "das",
    "und",
    "ein",
    "Rechner",
    "lernt",
    "Größe",
    "café",
    "où",
    "être",
    "мир",
    "слово",
    "42",
    "x+y",
)


def texts(count: int, seed: int = 0, words: int = 40) -> list[str]:
    """Documents that are all different, in several scripts."""
    rng = random.Random(seed)
    return [f"Text {seed}-{i}: " + " ".join(rng.choices(_WORDS, k=words)) + "." for i in range(count)]


def write_lines(file: Path, documents: Sequence[str]) -> Path:
    """A .jsonl file with one document a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents)
    file.write_text("".join(lines), encoding="utf-8")
    return file


def data_spec(tmp_path: Path, sources: Mapping[str, Path | SourceSpec], **changes: Any) -> DataSpec:
    """A mixture of text sources with a small tokenizer; `changes` replace fields of the DataSpec."""
    specs = {
        name: source if isinstance(source, SourceSpec) else SourceSpec(path=str(source))
        for name, source in sources.items()
    }
    settings: dict[str, Any] = {
        "cache_dir": str(tmp_path / "cache"),
        "tokenizer": TokenizerSpec(vocab_size=300, train_bytes=20_000),
        "validation_fraction": 0.1,
        "workers": 1,
    }
    return DataSpec(name="test", sources=specs, **(settings | changes))


def whole(file: Path) -> Span:
    """All of a file."""
    return Span(str(file), 0, file.stat().st_size)
