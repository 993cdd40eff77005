"""A sealed file as a source of its content: it reads and opens only the segments that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aiftrain.checkpoint.sealing.keys import Identities
from aiftrain.checkpoint.sealing.opening import Opening, data_key
from aiftrain.checkpoint.sealing.seal import TAG, Seal
from aiftrain.checkpoint.sources import Source
from aiftrain.errors import DamagedError

_AT_A_TIME = 8 << 20  # bytes fetched by one read; to a store each costs a round trip


class SealedSource:
    """The content of a sealed `source`. Every byte that it gives is as it was sealed, else DamagedError."""

    def __init__(self, source: Source, seal: Seal, secret: bytes, name: str, context: str) -> None:
        self.name = source.name
        self.size = seal.size
        if source.size != seal.sealed_size:
            raise DamagedError(f"{self.name} is damaged: {seal.sealed_size} bytes were sealed, {source.size} are there")
        self._source = source
        self._seal = seal
        self._opening = Opening(seal, secret, name, context, source.name)
        self._stored = memoryview(b"")  # what was fetched last; kept, since fresh memory costs as much as the cipher
        self._last: tuple[int, bytes] = (-1, b"")  # the segment opened last: small reads follow one another

    def read_into(self, offset: int, target: memoryview) -> None:
        stop = offset + len(target)
        if stop > self.size:
            raise DamagedError(f"{self.name} is damaged: it ends {stop - self.size} bytes too early")
        if not target:
            return
        size = self._seal.segment
        for index, content in self._opened(offset // size, (stop - 1) // size):
            start = index * size
            piece = content[max(0, offset - start) : stop - start]
            place = max(0, start - offset)
            target[place : place + len(piece)] = piece

    def close(self) -> None:
        self._source.close()

    def _opened(self, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        """The content of segments `first` to `last`."""
        if self._last[0] == first:
            yield self._last
            first += 1
        step = max(1, _AT_A_TIME // self._seal.segment)
        for begin in range(first, last + 1, step):
            for index, sealed in self._fetched(begin, min(begin + step, last + 1)):
                self._last = index, self._opening.open(index, sealed)
                yield self._last

    def _fetched(self, begin: int, end: int) -> Iterator[tuple[int, memoryview]]:
        """Segments [begin, end) as they are stored, by one read."""
        length = self._seal.segment + TAG
        size = min(end * length, self._source.size) - begin * length
        if len(self._stored) < size:
            self._stored = memoryview(bytearray(size))
        stored = self._stored[:size]
        self._source.read_into(begin * length, stored)
        for index in range(begin, end):
            place = (index - begin) * length
            yield index, stored[place : place + length]


def open_sealed(
    source: Source, seal: Seal, identities: Identities, *, name: str, context: str, recipients: Sequence[str] = ()
) -> SealedSource:
    """The content of a sealed file. `recipients`: those it was sealed for, for the message where no identity fits.

    DamagedError where the seal is not this file's, or was not made under `name` and `context`: now, where the sizes
    tell, otherwise at the first read.
    """
    return SealedSource(source, seal, data_key(seal, identities, source.name, recipients), name, context)
