"""Where on disk the pieces of a checkpoint's parameters lie, as the headers of its shards say.

Any process may read all headers. Thousands of ranks must not, each of them: a rank indexes its share of the shards and
packs it up for the others, and of theirs it keeps what it is going to read.
"""

from __future__ import annotations

import json
import zlib
from bisect import insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from aiftrain.checkpoint.tensorfile import TensorFile
from aiftrain.errors import DamagedError

Range = tuple[int, int]  # elements [start, stop) of a flattened parameter


@dataclass(frozen=True)
class Piece:
    """Elements [start, stop) of a state of a parameter, float32, in `file` from byte `offset` on."""

    start: int
    stop: int
    file: str
    offset: int


class Index:
    """Pieces by "<state>/<parameter>", in the order of their starts."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[Piece]] = {}

    def __iter__(self) -> Iterator[str]:
        """The keys of which there are pieces."""
        return iter(self._pieces)

    def add_shard(self, file: str, shard: TensorFile) -> None:
        """Take in all pieces of a shard, which the manifest calls `file`.

        DamagedError where its metadata does not fit its tensors.
        """
        for name, text in shard.metadata.items():
            if name not in shard.tensors or not text.isdecimal():
                raise DamagedError(f"{shard.source.name} is damaged: its metadata gives {name} the start {text!r}")
            stored, start = shard.tensors[name], int(text)
            piece = Piece(start, start + prod(stored.shape), file, stored.offset)
            self._add(name.removesuffix(f"@{start}"), piece)

    def pack(self) -> bytes:
        """All of it, for `add_packed` in another process."""
        rows = [[key, p.start, p.stop, p.file, p.offset] for key, pieces in self._pieces.items() for p in pieces]
        return zlib.compress(json.dumps(rows, separators=(",", ":")).encode())

    def add_packed(self, packed: bytes, wanted: Mapping[str, list[Range]]) -> None:
        """Take in what another process has packed, as far as it reaches into a range that is wanted of its key."""
        for key, start, stop, file, offset in json.loads(zlib.decompress(packed)):
            if any(start < last and stop > first for first, last in wanted.get(key, ())):
                self._add(key, Piece(start, stop, file, offset))

    def cover(self, key: str, start: int, stop: int) -> Iterator[tuple[Piece, int, int]]:
        """Pieces that hold elements from `start` on once, each with the range to be taken from it, as far as they go.

        They end before `stop` where there is a gap.
        """
        position = start
        for piece in self._pieces.get(key, []):
            if piece.start > position or position == stop:
                return
            if piece.stop > position:
                end = min(piece.stop, stop)
                yield piece, position, end
                position = end

    def reach(self, key: str, start: int, stop: int) -> int:
        """`stop` where the pieces hold all elements [start, stop), else the first element that they lack."""
        return max((end for _, _, end in self.cover(key, start, stop)), default=start)

    def holds(self, ranges: Mapping[str, list[Range]]) -> bool:
        """Whether there are pieces for the whole of each range."""
        return all(self.reach(key, start, stop) == stop for key, of_key in ranges.items() for start, stop in of_key)

    def _add(self, key: str, piece: Piece) -> None:
        insort(self._pieces.setdefault(key, []), piece, key=lambda other: other.start)
