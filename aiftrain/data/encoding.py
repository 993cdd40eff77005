"""Encoding one work unit: documents in, a token file out, with a hash of every document beside it.

A unit leaves four files: NAME.bin and NAME.idx, NAME.hashes.npy, and NAME.json, which is written last and
says that the unit is finished.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aiftrain.data.files import commit, part_of, write_json, writing
from aiftrain.data.indexed import IndexedWriter, Tokens, token_type
from aiftrain.data.sources import documents
from aiftrain.data.spans import Unit
from aiftrain.data.tokenizer import Tokenizer
from aiftrain.run.base import Strict
from aiftrain.run.corpus import SourceSpec

Hashes = NDArray[np.uint64]

_BATCH = 1 << 19  # characters encoded in one call
_LONGEST = 1 << 20  # characters after which a document is encoded in pieces, to bound the memory


class Job(Strict):
    """What all units of a source have in common."""

    spec: SourceSpec
    tokenizer: Path
    folder: Path
    seed: int

    def prefix(self, number: int) -> Path:
        """Where a unit's files lie, less their endings."""
        return self.folder / f"{number:06d}"


def encode_unit(job: Job, number: int, unit: Unit, tokenizer: Tokenizer) -> None:
    """Write a unit's files. Raises UserError where a source is wrong, MachineError where writing fails."""
    prefix = job.prefix(number)
    hashes: list[int] = []
    read = 0
    with IndexedWriter(prefix, token_type(tokenizer.vocab_size)) as writer:
        for texts in _batches(text for span in unit for text in documents(span, job.spec)):
            kept = [text for text in texts if text]
            writer.add(*_encode(tokenizer, kept))
            hashes += [document_hash(text, job.seed) for text in kept]
            read += len(texts)
        writer.commit()
    _write_hashes(hashes_file(prefix), np.array(hashes, np.uint64))
    write_json(record_file(prefix), {"documents": len(hashes), "left_out": read - len(hashes)})


def hashes_file(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".hashes.npy")


def record_file(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".json")


def document_hash(text: str, seed: int) -> int:
    """64 bits that only the text and the seed decide: equal documents have equal ones."""
    key = seed.to_bytes(16, "little")
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=key).digest(), "little")


def _batches(texts: Iterable[str | None]) -> Iterator[list[str | None]]:
    batch: list[str | None] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text or "") + 1
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encode(tokenizer: Tokenizer, texts: list[str]) -> tuple[Tokens, list[int]]:
    """All tokens, each document followed by the end-of-document token, and the documents' lengths."""
    pieces = [_pieces(text) for text in texts]
    encoded = iter(tokenizer.encode_batch(list(chain.from_iterable(pieces))))
    rows: list[list[int]] = []
    lengths: list[int] = []
    for parts in pieces:
        document = [*(next(encoded) for _ in parts), [tokenizer.eos_id]]
        rows += document
        lengths.append(sum(map(len, document)))
    return np.fromiter(chain.from_iterable(rows), token_type(tokenizer.vocab_size), sum(lengths)), lengths


def _pieces(text: str) -> list[str]:
    """A very long document in pieces that end with a line; a byte-level BPE gives the same tokens as for the whole."""
    pieces: list[str] = []
    start = 0
    while len(text) - start > _LONGEST:
        stop = _line_start(text, start + _LONGEST)
        pieces.append(text[start:stop])
        start = stop
    return [*pieces, text[start:]]


def _line_start(text: str, position: int) -> int:
    """The first place from `position` on where a line that is not blank and not indented follows another such line."""
    while (end := text.find("\n", position)) >= 0:
        if not text[end - 1 : end].isspace() and not text[end + 1 : end + 2].isspace():
            return end + 1
        position = end + 1
    return len(text)


def _write_hashes(file: Path, hashes: Hashes) -> None:
    part = part_of(file)
    with writing(file), part.open("wb") as stream:
        np.save(stream, hashes)
    commit(part, file)
