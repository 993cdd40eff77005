"""The safetensors file format, written as a stream and read by ranges.

A file is the length of its header (8 bytes, little endian), the header (JSON: dtype, shape and byte range of
each tensor, `__metadata__` with strings), then the tensors' bytes without gaps.
Source: https://github.com/huggingface/safetensors, section Format of its README.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.manifest import FileRecord
from aiftrain.checkpoint.sources import FileSource, Source
from aiftrain.checkpoint.writer import BLOCK, Written, write_file
from aiftrain.errors import DamagedError, MachineError

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_DTYPE_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
# What others write and numpy has no type for is read as whole numbers of that many bits.
_READ = _DTYPES | {"BF16": "<u2", "F8_E4M3": "|u1", "F8_E5M2": "|u1"}


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written; `load` gives its values when their turn comes, so that few are in memory at once."""

    key: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    load: Callable[[], NDArray[Any]]

    @property
    def size(self) -> int:
        """Bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def values(self) -> NDArray[Any]:
        """Loaded, and contiguous."""
        array = self.load()
        if (array.dtype, array.shape) != (self.dtype, self.shape):
            raise ValueError(f"{self.key} is {array.dtype}{array.shape}, its header {self.dtype}{self.shape}")
        return np.ascontiguousarray(array)


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its bytes begin at `offset`, counted from the start of the file.

    `kind` is the format's name of its type, `dtype` how numpy reads it.
    """

    kind: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


def of_array(key: str, array: NDArray[Any]) -> Tensor:
    """A tensor whose values are in memory already."""
    return Tensor(key, array.dtype, array.shape, lambda: array)


class Arranged:
    """What a file is going to be: its header, and its tensors in the order in which their bytes follow it."""

    def __init__(self, tensors: Iterable[Tensor], metadata: dict[str, str]) -> None:
        self.tensors = sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)  # wide types first: all stay aligned
        self.header = _header(self.tensors, metadata)
        self.ends = [len(self.header) + end for end in accumulate(tensor.size for tensor in self.tensors)]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.ends[-1] if self.ends else len(self.header)

    def blocks(self) -> Iterator[bytes | memoryview]:
        """The file's bytes, of which some MiB are in memory at a time; a block ends where a tensor does."""
        yield self.header
        for tensor in self.tensors:
            octets = _octets(tensor.values())
            for start in range(0, len(octets), BLOCK):
                yield octets[start : start + BLOCK]

    def places(self, memory: memoryview) -> Iterator[tuple[Tensor, NDArray[Any]]]:
        """Each tensor, and where in `memory`, which is to hold the whole file, its values belong."""
        for tensor, end in zip(self.tensors, self.ends, strict=True):
            octets = np.frombuffer(memory[end - tensor.size : end], np.uint8)
            yield tensor, octets.view(tensor.dtype).reshape(tensor.shape)


def write_tensors(path: Path, tensors: Iterable[Tensor], metadata: dict[str, str]) -> FileRecord:
    """Write one file, synced to the disk and read again. MachineError where that fails; then no file is left."""
    arranged = Arranged(tensors, metadata)
    with machine_errors("write", path):
        return record_of(path, write_file(path, arranged.blocks()))


def record_of(path: Path, written: Written) -> FileRecord:
    """The record of a file. MachineError where it reads otherwise than it was written; it is then removed."""
    if written.found != written.sha256:
        path.unlink(missing_ok=True)
        raise MachineError(
            f"{path} was written with the SHA-256 {written.sha256} and reads as {written.found}: the disk, or the "
            "network file system, changes what is written to it"
        )
    return FileRecord(name=path.name, size=written.size, sha256=written.sha256)


def _header(tensors: Sequence[Tensor], metadata: dict[str, str]) -> bytes:
    """The header with its length before it, padded so that the data begins at a multiple of 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for tensor in tensors:
        if tensor.key in entries:
            raise ValueError(f"two tensors are called {tensor.key!r}")
        end = offset + tensor.size
        entries[tensor.key] = {
            "dtype": _DTYPE_NAMES[tensor.dtype], "shape": tensor.shape, "data_offsets": [offset, end]
        }  # fmt: skip
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _octets(contiguous: NDArray[Any]) -> memoryview:
    """The bytes of an array, not copied."""
    return contiguous.reshape(-1).view(np.uint8).data


class TensorFile:
    """Safetensors in a source: its tensors by key, and its metadata. DamagedError where it is no such file, or cut."""

    def __init__(self, source: Source) -> None:
        self.source = source
        try:
            self.tensors, self.metadata = self._header()
        except BaseException:
            source.close()
            raise

    @classmethod
    def open(cls, path: Path) -> TensorFile:
        """The file at `path`. DamagedError where it is missing."""
        return cls(FileSource(path))

    def read(self, key: str) -> NDArray[Any]:
        """All values of one tensor."""
        stored = self.tensors[key]
        array = np.empty(stored.shape, stored.dtype)
        self.read_into(stored.offset, array)
        return array

    def read_into(self, offset: int, target: NDArray[Any]) -> None:
        """Fill `target`, a contiguous array, with the bytes from `offset` on."""
        self.source.read_into(offset, _octets(target))

    def close(self) -> None:
        self.source.close()

    def _header(self) -> tuple[dict[str, Stored], dict[str, str]]:
        begin = np.zeros(8, np.uint8)
        self.read_into(0, begin[: self.source.size])
        length = int.from_bytes(begin.tobytes(), "little")
        if 8 + length > self.source.size:
            raise DamagedError(
                f"{self.source.name} is damaged: a header of {length} bytes in a file of {self.source.size} bytes"
            )
        text = np.empty(length, np.uint8)
        self.read_into(8, text)
        try:
            entries = json.loads(text.tobytes())
            metadata: dict[str, str] = entries.pop("__metadata__", {})
            tensors = {key: _stored(entry, 8 + length, self.source.size) for key, entry in entries.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"{self.source.name} is damaged: its header cannot be read ({error!r})") from error
        return tensors, metadata


def _stored(entry: dict[str, Any], data_start: int, file_size: int) -> Stored:
    dtype, shape = np.dtype(_READ[entry["dtype"]]), tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if end - begin != prod(shape) * dtype.itemsize or not 0 <= begin <= end <= file_size - data_start:
        raise ValueError(f"bytes {begin} to {end} for {dtype}{shape} in a file of {file_size} bytes")
    return Stored(entry["dtype"], dtype, shape, data_start + begin)
