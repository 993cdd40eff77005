"""Bytes of an object in a bucket, in order; where a connection breaks off the next goes on, of the same object only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiftrain.checkpoint.stores.s3.client import Client
from aiftrain.checkpoint.stores.s3.faults import MISSING, OTHERWISE, RefusalError
from aiftrain.errors import DamagedError

_BLOCK = 2**20
_SHORTER = ("InvalidRange", "416")


class Download:
    """`length` bytes of an object from `start` on, `address` for messages. DamagedError where they are not there."""

    def __init__(self, client: Client, key: str, address: str, start: int, length: int) -> None:
        self._client, self._key, self._address = client, key, address
        self._start, self._end = start, start + length
        self._body: Any = None
        self._etag: str | None = None

    def blocks(self) -> Iterator[bytes]:
        try:
            while self._start < self._end:
                block = self._client.persist(f"read {self._address}", self._next, (*MISSING, *OTHERWISE, *_SHORTER))
                self._start += len(block)
                yield block
        except RefusalError as refusal:
            raise DamagedError(self._damage(refusal)) from refusal
        finally:
            self._close()

    def _next(self) -> bytes:
        """A block of bytes, at least one."""
        if self._body is None:
            self._open()
        try:
            block: bytes = self._body.read(min(_BLOCK, self._end - self._start))
            if not block:
                raise ConnectionError("the answer ends too early")
            return block
        except Exception:
            self._close()
            raise

    def _open(self) -> None:
        condition = {"IfMatch": self._etag} if self._etag else {}
        bounds = f"bytes={self._start}-{self._end - 1}"
        answer = self._client.once("get_object", Key=self._key, Range=bounds, **condition)
        self._body, self._etag = answer["Body"], answer["ETag"]
        missing = self._end - self._start - answer["ContentLength"]
        if missing:
            raise DamagedError(f"{self._address} is damaged: it ends {missing:,} bytes too early")

    def _damage(self, refusal: RefusalError) -> str:
        if refusal.code in MISSING:
            return f"{self._address} is missing"
        if refusal.code in OTHERWISE:
            return f"{self._address} was replaced while it was read"
        return f"{self._address} is damaged: it ends before byte {self._start:,}"

    def _close(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
