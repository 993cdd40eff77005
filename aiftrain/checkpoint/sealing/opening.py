"""Opening the segments of a sealed file, each alone or all of them as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from aiftrain.checkpoint.sealing.cipher import aes_gcm
from aiftrain.checkpoint.sealing.keys import Identities
from aiftrain.checkpoint.sealing.seal import KEY, TAG, Seal
from aiftrain.checkpoint.sealing.stream import segments
from aiftrain.checkpoint.stores.base import Octets
from aiftrain.data.files import optional_module
from aiftrain.errors import DamagedError


class Opening:
    """Opens one file, which was sealed under `name` and `context`; `where` it is, for messages."""

    def __init__(self, seal: Seal, secret: bytes, name: str, context: str, where: str) -> None:
        self._seal, self._where = seal, where
        self._cipher, self._bound = aes_gcm(secret), seal.associated_data(name, context)
        self._invalid = optional_module("cryptography.exceptions", "seal", "opening a seal").InvalidTag

    def open(self, index: int, sealed: memoryview) -> bytes:
        """The content of segment `index`. DamagedError where it is not what was sealed there."""
        try:
            return self._cipher.decrypt(self._seal.nonce(index), sealed, self._bound)
        except self._invalid:
            raise DamagedError(
                f"{self._where} is damaged: segment {index} of {self._seal.segments} is not what was sealed there"
            ) from None

    def all(self, stored: Iterable[Octets]) -> Iterator[bytes]:
        """The content of every segment. DamagedError where the stored bytes are not those that were sealed."""
        count = 0
        for sealed in segments(stored, self._seal.segment + TAG):
            yield self.open(count, sealed)
            count += 1
        if count != self._seal.segments:
            raise DamagedError(f"{self._where} is damaged: it ends after {count} of {self._seal.segments} segments")


def data_key(seal: Seal, identities: Identities, where: str, recipients: Sequence[str]) -> bytes:
    """The key of a file that is `where`. UserError where none of `identities` opens its seal, DamagedError where it is
    damaged. `recipients`: those it was sealed for, for the message.
    """
    secret = identities.unwrap(seal.wrapped, f"the seal of {where}", recipients)
    if len(secret) != KEY:
        raise DamagedError(f"{where} is damaged: its seal holds a key of {len(secret)} bytes")
    return secret
