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


def cut(blocks: Iterable[Octets], size: int, length: int) -> Iterator[bytearray]:
    """Parts of `length` bytes, the last one shorter. DamagedError where more or less than `size` bytes come.

    They are copies: a caller may fill its block again.
    """
    stream = iter(blocks)
    came, left = 0, memoryview(b"")
    while came < size:
        content, left = _fill(stream, left, min(length, size - came))
        came += len(content)
        yield content
    if left or any(len(block) for block in stream):
        raise DamagedError(f"more than the {size:,} bytes came that were announced")


def _fill(stream: Iterator[Octets], left: memoryview, length: int) -> tuple[bytearray, memoryview]:
    """The next `length` bytes, and what is over of the last block."""
    content, filled = bytearray(length), 0
    while filled < length:
        if not left:
            block = next(stream, None)
            if block is None:
                raise DamagedError(f"the bytes end {length - filled:,} too early for what was announced")
            left = memoryview(block).cast("B")
        taken = min(len(left), length - filled)
        content[filled : filled + taken] = left[:taken]
        filled, left = filled + taken, left[taken:]
    return content, left
