"""Shards: the file that each rank writes, and reading any range of a parameter back from all of them.

A rank holds fragments of flattened parameters, cut wherever the engine cut them. A fragment's arrays are stored
under "<state>/<parameter>", further fragments of the same parameter under "<state>/<parameter>@<start>", and the
metadata of the file gives the start of each. What else a rank needs is stored under "extra/<name>".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiftrain.checkpoint.manifest import FileRecord, Manifest
from aiftrain.checkpoint.tensorfile import of_array, read_header, read_into, read_tensor, write_tensors
from aiftrain.errors import DamagedError

Array = NDArray[np.float32]
STATES = ("weight", "exp_avg", "exp_avg_sq")
_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Fragment:
    """Elements [start, start + n) of the flattened parameter `name`: an [n] float32 array for each state held."""

    name: str
    start: int
    arrays: dict[str, Array]

    def __post_init__(self) -> None:
        for state, array in self.arrays.items():
            if state not in STATES:
                raise ValueError(f"{self.name}: {state!r} is none of the states {', '.join(STATES)}")
            if array.ndim != 1 or array.dtype != _FLOAT32:
                raise ValueError(f"{self.name}: {state} is {array.dtype}{list(array.shape)}, not flat float32")
        if len({array.size for array in self.arrays.values()}) > 1:
            raise ValueError(f"{self.name}: its states differ in length")


@dataclass(frozen=True)
class _Piece:
    """Where elements [start, stop) of a state of a parameter lie on disk."""

    start: int
    stop: int
    file: Path
    offset: int

    def offset_of(self, element: int) -> int:
        return self.offset + _FLOAT32.itemsize * (element - self.start)


def shard_name(rank: int) -> str:
    """The file name of a rank's shard inside a checkpoint."""
    return f"rank-{rank:05d}.safetensors"


def write_shard(path: Path, fragments: Iterable[Fragment], extra: dict[str, NDArray[Any]]) -> FileRecord:
    """Write what one rank holds, synced to the disk, and return its record for the manifest.

    MachineError where the disk is full, read-only or failing; the partial file is then removed.
    """
    starts: dict[str, str] = {}
    arrays: dict[str, NDArray[Any]] = {f"extra/{name}": array for name, array in extra.items()}
    for fragment in fragments:
        for state, array in fragment.arrays.items():
            key = f"{state}/{fragment.name}"
            if key in arrays:
                key = f"{key}@{fragment.start}"
            if key in arrays:
                raise ValueError(f"two fragments hold {key}")
            arrays[key] = array
            starts[key] = str(fragment.start)
    return write_tensors(path, [of_array(key, array) for key, array in arrays.items()], starts)


class CheckpointReader:
    """Reads parameters from however many shards there are, into however many ranks there are now."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._manifest = manifest

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The full shape of each parameter."""
        return {name: tuple(shape) for name, shape in self._manifest.shapes.items()}

    def read(self, name: str, state: str, start: int, stop: int) -> Array:
        """Elements [start, stop) of a flattened parameter, as a new float32 array.

        DamagedError where no shard holds some of them, or a file is missing or cut short.
        """
        if not 0 <= start <= stop <= self._elements(name):
            raise ValueError(f"{name} has {self._elements(name)} elements: there is no range {start} to {stop}")
        values = np.empty(stop - start, np.float32)
        for piece, begin, end in self._cover(name, state, start, stop):
            read_into(piece.file, piece.offset_of(begin), values[begin - start : end - start])
        return values

    def extra(self, rank: int) -> dict[str, NDArray[Any]]:
        """The extra arrays that `rank` wrote."""
        path = self._folder / shard_name(rank)
        tensors, _ = read_header(path)
        return {
            key.removeprefix("extra/"): read_tensor(path, tensor)
            for key, tensor in tensors.items()
            if key.startswith("extra/")
        }

    def check_complete(self) -> None:
        """DamagedError unless the shards hold all weights, and each other state from end to end or not at all."""
        states = {state for _, state in self._pieces} | {"weight"}
        for name in self._manifest.shapes:
            for state in states:
                for _ in self._cover(name, state, 0, self._elements(name)):
                    pass

    def _cover(self, name: str, state: str, start: int, stop: int) -> Iterator[tuple[_Piece, int, int]]:
        """Pieces that together hold elements [start, stop) once: each with the range to be taken from it."""
        position = start
        for piece in self._pieces.get((name, state), []):
            if piece.start > position or position == stop:
                break
            if piece.stop > position:
                end = min(piece.stop, stop)
                yield piece, position, end
                position = end
        if position < stop:
            raise DamagedError(f"{self._folder} lacks {state} of {name} from element {position} on, wanted to {stop}")

    def _elements(self, name: str) -> int:
        if name not in self._manifest.shapes:
            raise DamagedError(f"{self._folder} holds no parameter {name}: it is a checkpoint of another model")
        return prod(self._manifest.shapes[name])

    @cached_property
    def _pieces(self) -> dict[tuple[str, str], list[_Piece]]:
        """All pieces by parameter and state, in the order of their starts."""
        pieces: dict[tuple[str, str], list[_Piece]] = {}
        for record in self._manifest.files:
            for name, state, piece in _pieces_of(self._folder / record.name):
                pieces.setdefault((name, state), []).append(piece)
        for group in pieces.values():
            group.sort(key=lambda piece: piece.start)
        return pieces


def _pieces_of(path: Path) -> Iterator[tuple[str, str, _Piece]]:
    tensors, starts = read_header(path)
    for key, start_text in starts.items():
        if key not in tensors or not start_text.isdecimal():
            raise DamagedError(f"{path} is damaged: its metadata gives {key} the start {start_text!r}")
        state, _, name = key.partition("/")
        start = int(start_text)
        stop = start + prod(tensors[key].shape)
        yield name.removesuffix(f"@{start}"), state, _Piece(start, stop, path, tensors[key].offset)
