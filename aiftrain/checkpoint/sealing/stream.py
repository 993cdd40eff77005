"""Sealing a file as a stream of blocks: a segment in memory at a time, and the size known before the first byte."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Iterator, Sequence

from aiftrain.checkpoint.sealing.cipher import aes_gcm
from aiftrain.checkpoint.sealing.keys import wrap
from aiftrain.checkpoint.sealing.seal import KEY, Seal
from aiftrain.checkpoint.stores.base import Octets
from aiftrain.errors import DamagedError


def seal_blocks(
    blocks: Iterable[Octets], size: int, *, name: str, context: str, recipients: Sequence[str]
) -> tuple[Seal, Iterator[bytes]]:
    """The seal of a file with `size` bytes of content, and its sealed blocks, which are `seal.sealed_size` bytes.

    `name` and `context` (the file in its checkpoint, the checkpoint among all) are bound into it: it opens under the
    same ones only. Each call makes a key of its own. UserError for a recipient that is no age public key.
    DamagedError, while the blocks are taken, where the content has another size.
    """
    secret = secrets.token_bytes(KEY)
    seal = Seal(size=size, key=base64.b64encode(wrap(secret, recipients)).decode())
    return seal, enciphered(blocks, seal, secret, name, context)


def enciphered(blocks: Iterable[Octets], seal: Seal, secret: bytes, name: str, context: str) -> Iterator[bytes]:
    """The sealed segments under a data key. A key must never be used for a second file."""
    cipher, bound = aes_gcm(secret), seal.associated_data(name, context)
    left = seal.size
    for index, content in enumerate(segments(blocks, seal.segment)):
        left -= len(content)
        if left < 0 or (left and len(content) < seal.segment):
            break
        yield cipher.encrypt(seal.nonce(index), content, bound)
    if left:
        raise DamagedError(f"{name} has {seal.size - left} bytes or more, not the {seal.size} it was to have")


def segments(blocks: Iterable[Octets], segment: int) -> Iterator[memoryview]:
    """The same bytes in pieces of `segment`, the last one shorter; each is valid until the next is asked for."""
    kept, held = memoryview(bytearray(segment)), 0
    empty = True
    for block in blocks:
        rest = memoryview(block).cast("B")
        while rest:
            empty = False
            if not held and len(rest) >= segment:  # no copy
                yield rest[:segment]
                rest = rest[segment:]
                continue
            taken = min(len(rest), segment - held)
            kept[held : held + taken] = rest[:taken]
            held, rest = held + taken, rest[taken:]
            if held == segment:
                yield kept
                held = 0
    if held or empty:
        yield kept[:held]
