"""Token files in Megatron's layout: PREFIX.bin holds the tokens, PREFIX.idx says where sequences and documents lie.

    PREFIX.idx    "MMIDIDX\\0\\0" · version 1, uint64 · code of the token type, uint8 · number of sequences S, uint64
                  · number of document entries D + 1, uint64 · S lengths in tokens, int32 · S offsets into the .bin
                  in bytes, int64 · D + 1 sequence numbers at which documents begin, the last one S, int64
                  (after which multimodal files have one byte a sequence, which is not read). All little-endian.

Source of the layout: the readme and the index writer in NVIDIA's Megatron-LM, megatron/core/datasets.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiftrain.data.files import commit, part_of, reading, writing
from aiftrain.errors import DamagedError, UserError

Tokens = NDArray[Any]  # 1-D, of one of the integer types below
Positions = NDArray[np.int64]

_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_HEADER = struct.Struct("<9sQBQQ")
_TYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_UINT16_VOCABULARY = 65_500  # Megatron's bound: from this size on it writes int32
_IN_MEMORY = 1 << 20  # documents whose starts are kept in memory, to be found fast


def token_type(vocab_size: int) -> np.dtype[Any]:
    """What a token is stored as: uint16 where the vocabulary is below 65,500 entries, int32 otherwise."""
    return np.dtype("<u2" if vocab_size < _UINT16_VOCABULARY else "<i4")


def bin_file(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".bin")


def index_file(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".idx")


class IndexedTokens:
    """A .bin/.idx pair, mapped into memory; tokens are never copied.

    `tokens` is the whole stream, 1-D. Opening costs the same for any size; `check` reads the whole index.
    Raises UserError where a file is missing or no such pair, DamagedError where the two do not fit together.
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        self.prefix = Path(prefix)
        self._bin, self._index = bin_file(self.prefix), index_file(self.prefix)
        index = _map(self._index)
        self.dtype, self.sequences, self.documents = self._header(index[: _HEADER.size].tobytes())
        lengths_at = _HEADER.size
        offsets_at = lengths_at + 4 * self.sequences
        documents_at = offsets_at + 8 * self.sequences
        end = documents_at + 8 * (self.documents + 1)
        if len(index) < end:
            raise DamagedError(f"{self._index} is cut short: it has {len(index)} bytes and its header tells of {end}")
        self._lengths = index[lengths_at:offsets_at].view("<i4")
        self._offsets = index[offsets_at:documents_at].view("<i8")
        self._documents = index[documents_at:end].view("<i8")
        self.tokens = self._map_tokens()

    def __len__(self) -> int:
        """The number of tokens."""
        return int(self.tokens.shape[0])

    def document_starts(self, documents: Positions) -> Positions:
        """The token at which each of `documents` (numbers up to and including `self.documents`) starts."""
        if self.documents <= _IN_MEMORY:
            return self._starts[documents]
        return self._read_starts(documents)

    def _read_starts(self, documents: Positions) -> Positions:
        if not self.sequences:
            return np.zeros_like(documents)
        sequence = self._documents[documents]
        start = self._offsets[np.minimum(sequence, self.sequences - 1)] // self.dtype.itemsize
        return np.where(sequence == self.sequences, len(self), start)

    def documents_before(self, positions: Positions) -> Positions:
        """How many documents start at or before each token position."""
        if self.documents <= _IN_MEMORY:
            return np.searchsorted(self._starts[:-1], positions, side="right")
        return self._documents_before(positions)

    @cached_property
    def _starts(self) -> Positions:
        return self._read_starts(np.arange(self.documents + 1))

    def _documents_before(self, positions: Positions) -> Positions:
        """A binary search of all positions at once that leaves a huge index on disk.

        numpy's own would copy the whole index at each call, since its entries are not aligned.
        """
        low = np.zeros_like(positions)
        high = np.full_like(positions, self.documents)
        for _ in range(self.documents.bit_length()):
            middle = (low + high) // 2
            found = (self.document_starts(middle) <= positions) & (middle < high)
            low = np.where(found, middle + 1, low)
            high = np.where(found, high, middle)
        return low

    def document(self, number: int) -> Tokens:
        """The tokens of one document, in all its sequences."""
        start, stop = self.document_starts(np.array([number, number + 1]))
        return self.tokens[start:stop]

    def check(self) -> None:
        """Read the whole index: sequences must follow each other without gaps, documents must be in order."""
        expected = np.cumsum(self._lengths, dtype=np.int64) * self.dtype.itemsize
        gapless = np.array_equal(self._offsets[1:], expected[:-1]) and not self._offsets[:1].any()
        if not gapless or (self._lengths < 0).any():
            raise DamagedError(f"{self._index} is damaged: its sequences do not follow each other in {self._bin.name}")
        if (np.diff(self._documents) < 0).any():
            raise DamagedError(f"{self._index} is damaged: its documents are out of order")

    def _header(self, header: bytes) -> tuple[np.dtype[Any], int, int]:
        """Token type, sequences, documents."""
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            raise UserError(f"{self._index} is no Megatron index: it does not begin with {_MAGIC!r}")
        _, version, code, sequences, entries = _HEADER.unpack(header)
        if version != _VERSION:
            raise UserError(f"{self._index} has version {version} of Megatron's index; version {_VERSION} can be read")
        if code not in _TYPES:
            raise UserError(f"{self._index} has tokens of type code {code}; integers can be read, codes {list(_TYPES)}")
        if entries < 1:
            raise DamagedError(f"{self._index} is damaged: it has no document index")
        return np.dtype(_TYPES[code]), sequences, entries - 1

    def _map_tokens(self) -> Tokens:
        content = _map(self._bin)
        needed = 0
        if self.sequences:
            needed = int(self._offsets[-1]) + int(self._lengths[-1]) * self.dtype.itemsize
        if len(content) != needed:
            told = f"its index {self._index.name} tells of {needed}"
            raise DamagedError(f"{self._bin} has {len(content)} bytes, but {told}")
        if (int(self._documents[0]), int(self._documents[-1])) != (0, self.sequences):
            raise DamagedError(f"{self._index} is damaged: its documents do not cover its {self.sequences} sequences")
        return content.view(self.dtype)


def _map(file: Path) -> NDArray[np.uint8]:
    """The bytes of a file, mapped into memory. It is opened once; an empty one cannot be mapped."""
    with reading(file), file.open("rb") as stream:
        empty = not os.fstat(stream.fileno()).st_size
        return np.empty(0, np.uint8) if empty else np.asarray(np.memmap(stream, np.uint8, "r"))


class IndexedWriter:
    """Writes a .bin/.idx pair as a stream, one sequence a document; both appear when `commit` is called.

    Left without `commit` (say by an exception), it leaves nothing behind. Raises MachineError.
    """

    def __init__(self, prefix: Path, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._bin, self._index = bin_file(prefix), index_file(prefix)
        self._lengths: list[NDArray[np.int32]] = []
        with writing(self._bin):
            self._stream = part_of(self._bin).open("wb")

    def add(self, tokens: Tokens, lengths: Sequence[int] | Positions) -> None:
        """Append documents: their tokens one after another, and how many each one has."""
        self._lengths.append(np.asarray(lengths, dtype=np.int32))
        with writing(self._bin):
            self._stream.write(np.ascontiguousarray(tokens, dtype=self._dtype).data)

    def commit(self) -> None:
        """Close both files and give them their names, the index last."""
        with writing(self._bin):
            self._stream.close()
        commit(part_of(self._bin), self._bin)
        part = part_of(self._index)
        with writing(self._index), part.open("wb") as stream:
            for piece in self._index_pieces():
                stream.write(piece)
        commit(part, self._index)

    def _index_pieces(self) -> list[bytes | memoryview]:
        lengths = np.concatenate([np.empty(0, np.int32), *self._lengths])
        offsets = np.zeros(len(lengths), np.int64)
        np.cumsum(lengths[:-1] * np.int64(self._dtype.itemsize), out=offsets[1:])
        documents = np.arange(len(lengths) + 1, dtype=np.int64)
        code = next(code for code, name in _TYPES.items() if np.dtype(name) == self._dtype)
        header = _HEADER.pack(_MAGIC, _VERSION, code, len(lengths), len(documents))
        return [header, lengths.data, offsets.data, documents.data]

    def __enter__(self) -> IndexedWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with writing(self._bin):
            self._stream.close()
            part_of(self._bin).unlink(missing_ok=True)
            part_of(self._index).unlink(missing_ok=True)
