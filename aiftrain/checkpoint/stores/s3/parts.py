"""How an object is cut into parts: large enough for the service's limit of parts, few enough at a time for memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from aiftrain.checkpoint.stores.base import Octets
from aiftrain.errors import DamagedError, MachineError
from aiftrain.run.storage import ServiceLimits

MIB, GIB = 2**20, 2**30
SMALLEST = 64 * MIB  # smaller parts cost more requests than they save memory
# Limits of S3 itself (docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html) and, of objects, of Ceph's gateway:
# for what a service does not document.
_MAX_PARTS, _MAX_PART, _MAX_OBJECT = 10_000, 5 * GIB, 5 * 1024 * GIB
_SHARE = 0.9  # of the parts that are allowed: no object meets the limit


def part_size(size: int, limits: ServiceLimits, smallest: int = SMALLEST) -> int:
    """Bytes of a part of an object of `size` bytes. MachineError where the service takes no object as large."""
    largest = int((limits.max_part_gib or _MAX_PART / GIB) * GIB)
    parts = int((limits.max_parts or _MAX_PARTS) * _SHARE)
    most = min(int((limits.max_object_gib or _MAX_OBJECT / GIB) * GIB), largest * parts)
    if size > most:
        raise MachineError(f"an object of {size:,} bytes is more than the service takes ({most:,}): use more ranks")
    return min(largest, max(smallest, -(-size // parts)))


class Parts:
    """Blocks as parts of `length` bytes, the last one shorter: copies, so that a caller may fill its block again.

    To iterate over once. DamagedError where more or less than `size` bytes come.
    """

    def __init__(self, blocks: Iterable[Octets], size: int, length: int) -> None:
        self._stream, self._size, self._length = iter(blocks), size, length
        self._left = memoryview(b"")  # of the last block
        self._spare: list[bytearray] = []

    def __iter__(self) -> Iterator[bytearray]:
        for start in range(0, self._size, self._length):
            yield self._filled(min(self._length, self._size - start))
        if self._left or any(len(block) for block in self._stream):
            raise DamagedError(f"more than the {self._size:,} bytes came that were announced")

    def give_back(self, part: bytearray) -> None:
        """Let its memory be filled again: new memory takes the kernel six times as long as the copying itself."""
        if len(part) == self._length:
            self._spare.append(part)

    def _filled(self, length: int) -> bytearray:
        reusable = self._spare and length == self._length
        content, filled = self._spare.pop() if reusable else bytearray(length), 0
        while filled < length:
            if not self._left:
                self._left = self._next_block(length - filled)
            taken = min(len(self._left), length - filled)
            content[filled : filled + taken] = self._left[:taken]
            filled, self._left = filled + taken, self._left[taken:]
        return content

    def _next_block(self, missing: int) -> memoryview:
        block = next(self._stream, None)
        if block is None:
            raise DamagedError(f"the bytes end {missing:,} too early for what was announced")
        return memoryview(block).cast("B")
