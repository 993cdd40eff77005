"""An object on its way to a bucket in parts: several at a time, all of them or none, each compared as it arrives."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any

from aiftrain.checkpoint.stores.s3.client import Client
from aiftrain.checkpoint.stores.s3.faults import RefusalError
from aiftrain.checkpoint.stores.s3.parts import Parts
from aiftrain.errors import AiftrainError, MachineError

_GONE = ("NoSuchUpload", "404")


class Upload:
    """A context manager: what is not completed inside is aborted, and leaves nothing behind.

    `signed`: the service compares parts with the SHA-256 that they are signed with (signed_content.py), and their MD5
    is what it answers; else they are sent with it.
    """

    def __init__(self, client: Client, key: str, what: str, *, signed: bool) -> None:
        self._client, self._key, self._what, self._signed = client, key, what, signed
        self._id, self._completed = "", False

    def __enter__(self) -> Upload:
        self._id = self._client.call(self._what, "create_multipart_upload", Key=self._key)["UploadId"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._completed:
            with suppress(AiftrainError):  # what was wrong first is told
                self._client.call(self._what, "abort_multipart_upload", Key=self._key, UploadId=self._id)

    def send(self, parts: Parts, at_once: int) -> list[bytes]:
        """Send all parts, `at_once` at a time while the next one is read; their MD5, in order."""
        digests: list[bytes] = []
        waiting: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(at_once) as pool:
            for number, content in enumerate(parts, 1):
                waiting.append(pool.submit(self._send_part, parts, number, content))
                if len(waiting) == at_once:
                    digests.append(waiting.popleft().result())
            digests += [future.result() for future in waiting]
        return digests

    def _send_part(self, parts: Parts, number: int, content: bytearray) -> bytes:
        place, digest = self.place(number), None if self._signed else md5(content)
        if digest:
            place["ContentMD5"] = header(digest)
        answer = self._client.call(self._what, "upload_part", Body=content, **place)
        parts.give_back(content)
        return digest or self._md5_in(answer["ETag"])

    def place(self, number: int) -> dict[str, Any]:
        """Of a part, counted from 1, as requests name it."""
        return {"Key": self._key, "UploadId": self._id, "PartNumber": number}

    def _md5_in(self, etag: str) -> bytes:
        try:
            return bytes.fromhex(bare(etag))
        except ValueError:
            raise MachineError(f"cannot {self._what}: {self._client.host} answers with no MD5 of a part") from None

    def complete(self, digests: list[bytes]) -> str:
        """Make the parts an object; its ETag. An upload that is gone after silence was completed by the lost try."""
        parts = [{"PartNumber": number, "ETag": digest.hex()} for number, digest in enumerate(digests, 1)]
        place: dict[str, Any] = {"Key": self._key, "UploadId": self._id, "MultipartUpload": {"Parts": parts}}
        try:
            answer = self._client.call(self._what, "complete_multipart_upload", expected=_GONE, **place)
        except RefusalError as refusal:
            if not refusal.after_silence:
                raise MachineError(f"cannot {self._what}: somebody else has ended the upload") from refusal
            answer = {}
        self._completed = True
        if not answer.get("ETag"):  # Ceph 16 leaves it empty
            answer = self._client.call(self._what, "head_object", Key=self._key)
        return str(answer["ETag"])


def md5(content: bytes | bytearray) -> bytes:
    """What S3 compares and answers with: against what breaks on the way, not against who means harm."""
    return hashlib.md5(content, usedforsecurity=False).digest()


def bare(etag: str) -> str:
    """Without the quotation marks that S3 puts around it."""
    return etag.strip('"')


def header(digest: bytes) -> str:
    """The value of Content-MD5."""
    return base64.b64encode(digest).decode()


def etag_of(digests: list[bytes], *, in_parts: bool) -> str:
    """What S3 calls an object of such parts, where it does not encrypt by itself."""
    return f"{md5(b''.join(digests)).hex()}-{len(digests)}" if in_parts else digests[0].hex()
