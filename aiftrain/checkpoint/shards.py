"""Shards: the file that each rank writes, and reading any range of a parameter back from all of them.

A rank holds fragments of flattened parameters, cut wherever the engine cut them. A fragment's arrays are stored
under "<state>/<parameter>", further fragments of the same parameter under "<state>/<parameter>@<start>", and the
metadata of the file gives the start of each. What else a rank needs is stored under "extra/<name>".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.index import Index, Range
from aiftrain.checkpoint.manifest import FileRecord, Manifest
from aiftrain.checkpoint.sources import Source
from aiftrain.checkpoint.tensorfile import Arranged, Tensor, TensorFile, of_array, record_of
from aiftrain.checkpoint.writer import write_file
from aiftrain.errors import DamagedError

Array = NDArray[np.float32]
WEIGHT = "weight"  # the state that every parameter has
_FLOAT32 = np.dtype(np.float32)
_MOST_OPEN = 16  # shards that a reader keeps open; a rank of another layout goes to and fro between a few


@dataclass(frozen=True)
class Fragment:
    """Elements [start, start + n) of the flattened parameter `name`: an [n] float32 array for each state held."""

    name: str
    start: int
    arrays: dict[str, Array]

    def __post_init__(self) -> None:
        for state, array in self.arrays.items():
            if not state.isidentifier() or state == "extra":
                raise ValueError(f"{self.name}: a state cannot be called {state!r}")
            if array.ndim != 1 or array.dtype != _FLOAT32:
                raise ValueError(f"{self.name}: {state} is {array.dtype}{list(array.shape)}, not flat float32")
        if len({array.size for array in self.arrays.values()}) > 1:
            raise ValueError(f"{self.name}: its states differ in length")


def shard_name(rank: int) -> str:
    """The file name of a rank's shard inside a checkpoint."""
    return f"rank-{rank:05d}.safetensors"


class Shard:
    """A shard in the making: the tensors that it is going to have, under the keys that readers look for."""

    def __init__(self, extra: Mapping[str, NDArray[Any]]) -> None:
        self._weights: dict[str, Tensor] = {}
        self._others = {f"extra/{name}": of_array(f"extra/{name}", array) for name, array in extra.items()}
        self._starts: dict[str, str] = {}

    def add(self, state: str, name: str, start: int, make: Callable[[str], Tensor]) -> None:
        """Elements of a state of the flattened parameter `name`, from `start` on; `make` is told their key."""
        key = f"{state}/{name}"
        if key in self._starts:
            key = f"{key}@{start}"
        if key in self._starts:
            raise ValueError(f"two fragments hold {key}")
        self._starts[key] = str(start)
        (self._weights if state == WEIGHT else self._others)[key] = make(key)

    def arranged(self) -> Arranged:
        """The file, all weights first: they end at `mark_of` it."""
        return Arranged([*self._weights.values(), *self._others.values()], self._starts)


def mark_of(arranged: Arranged) -> int:
    """Where in a shard the weights end. Two saves of the same weights by as many ranks are the same up to there."""
    ends = zip(arranged.tensors, arranged.ends, strict=True)
    return max((end for tensor, end in ends if tensor.key.startswith(f"{WEIGHT}/")), default=len(arranged.header))


def write_shard(path: Path, fragments: Iterable[Fragment], extra: dict[str, NDArray[Any]]) -> FileRecord:
    """Write what one rank holds, synced to the disk and read again, and return its record for the manifest.

    MachineError where the disk is full, read-only or failing; the partial file is then removed.
    """
    shard = Shard(extra)
    for fragment in fragments:
        for state, array in fragment.arrays.items():
            shard.add(state, fragment.name, fragment.start, partial(of_array, array=array))
    with machine_errors("write", path):
        return record_of(path, write_file(path, shard.arranged().blocks()))


class CheckpointReader:
    """Reads parameters from however many shards there are, into however many ranks there are now.

    It reads the header of every shard when it is first asked for something, unless `look_into` or `learn` has told
    it where to look. A file that it has opened stays open, up to some, until it is closed.
    """

    def __init__(self, where: str, manifest: Manifest, open_source: Callable[[str], Source]) -> None:
        """`open_source` opens a shard by its name; `where` is the checkpoint's place, for messages."""
        self._where = where
        self._manifest = manifest
        self._open_source = open_source
        self._known: Index | None = None
        self._open: dict[str, TensorFile] = {}  # the one used last comes last

    def __enter__(self) -> CheckpointReader:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1].close()

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
        self._check(name, state, start, stop)
        values = np.empty(stop - start, np.float32)
        for piece, begin, end in self._index.cover(f"{state}/{name}", start, stop):
            offset = piece.offset + _FLOAT32.itemsize * (begin - piece.start)
            self.shard(piece.file).read_into(offset, values[begin - start : end - start])
        return values

    def extra(self, rank: int) -> dict[str, NDArray[Any]]:
        """The extra arrays that `rank` wrote."""
        shard = self.shard(shard_name(rank))
        return {key.removeprefix("extra/"): shard.read(key) for key in shard.tensors if key.startswith("extra/")}

    def check_complete(self) -> None:
        """DamagedError unless the shards hold all weights, and of other states what they have from end to end.

        Which states a parameter has is the optimizer's affair, and may differ from another parameter's.
        """
        weights = {f"weight/{name}" for name in self._manifest.shapes}
        for state, _, name in (key.partition("/") for key in sorted(weights | set(self._index))):
            if name in self._manifest.shapes:
                self._check(name, state, 0, self._elements(name))

    def look_into(self, files: Iterable[str]) -> Index:
        """Read the headers of these shards only, and from now on count on no others but what `learn` adds."""
        self._known = Index()
        for file in files:
            self._known.add_shard(file, self.shard(file))
        return self._known

    def learn(self, packed: Iterable[bytes], wanted: Mapping[str, list[Range]]) -> None:
        """Count on what others found when they looked into shards, as far as it is wanted; see `Index.add_packed`."""
        self._known = Index()
        for part in packed:
            self._known.add_packed(part, wanted)

    @property
    def _index(self) -> Index:
        return self._known or self.look_into(record.name for record in self._manifest.shards)

    def _check(self, name: str, state: str, start: int, stop: int) -> None:
        reach = self._index.reach(f"{state}/{name}", start, stop)
        if reach < stop:
            raise DamagedError(f"{self._where} lacks {state} of {name} from element {reach} on, wanted to {stop}")

    def _elements(self, name: str) -> int:
        if name not in self._manifest.shapes:
            raise DamagedError(f"{self._where} holds no parameter {name}: it is a checkpoint of another model")
        return prod(self._manifest.shapes[name])

    def shard(self, file: str) -> TensorFile:
        """A shard by its name, open until others have taken its place."""
        shard = self._open.pop(file, None) or TensorFile(self._open_source(file))
        self._open[file] = shard
        if len(self._open) > _MOST_OPEN:
            self._open.pop(next(iter(self._open))).close()
        return shard
