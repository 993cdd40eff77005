"""A bucket of an S3 service as a store. Where botocore may be missing, `bucket.open_bucket` asks for it first.

Every object is checked before `write` returns: it is sent with its MD5, or in parts with their SHA-256, which the
service compares, and it answers with the MD5 of what it stored. Where it answers something else (it encrypts by itself,
say), the object is read back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from aiftrain.checkpoint.stores.base import AlreadyThereError, Entry, Octets
from aiftrain.checkpoint.stores.credentials import Credentials
from aiftrain.checkpoint.stores.gate import Gate, NoRedirects
from aiftrain.checkpoint.stores.s3.client import Client
from aiftrain.checkpoint.stores.s3.download import Download
from aiftrain.checkpoint.stores.s3.faults import MISSING, OTHERWISE, RefusalError
from aiftrain.checkpoint.stores.s3.parts import SMALLEST, Parts, part_size
from aiftrain.checkpoint.stores.s3.probe import probe
from aiftrain.checkpoint.stores.s3.public import openings
from aiftrain.checkpoint.stores.s3.signed_content import compares_signed_content
from aiftrain.checkpoint.stores.s3.upload import Upload, bare, etag_of, header, md5
from aiftrain.errors import DamagedError, MachineError, UserError
from aiftrain.run.storage import ArchiveSpec

_NO_CONDITIONS = ("NotImplemented", "InvalidArgument", "501")
_FORBIDDEN = "403"
_PAGE = 1000  # names in one answer: the most that S3 gives


class S3Store:
    """A bucket, or what begins with `prefix` in it (empty, or with a slash at its end). Threads may share it.

    An upload sends `parts_at_once` parts while one more is filled, and takes so much memory, times the size of a
    part; of very large objects parts are larger, and fewer of them on their way. `patience` and `wait`: see Client.
    """

    confirms = True

    def __init__(
        self,
        archive: ArchiveSpec,
        credentials: Credentials | None,
        gate: Gate | None = None,
        *,
        patience: float = 120.0,
        wait: float = 60.0,
        parts_at_once: int = 4,
        smallest_part: int = SMALLEST,
    ) -> None:
        assert archive.service is not None, "a bucket is of a service"
        self.address = archive.address.rstrip("/")
        self.client = Client(
            archive.service,
            archive.bucket,
            credentials,
            gate or NoRedirects(),
            patience=patience,
            wait=wait,
            connections=parts_at_once + 2,
        )
        self._limits = archive.service.limits
        self.prefix = f"{archive.prefix}/" if archive.prefix else ""
        self._parts_at_once, self._smallest_part = parts_at_once, smallest_part

    def check(self) -> None:
        """Ask for something, so that what is wrong with endpoint, keys or bucket is said before there is work."""
        self.client.call(f"use {self.address}", "list_objects_v2", Prefix=self.prefix, MaxKeys=1)

    def check_private(self) -> None:
        if found := openings(self.client, self.prefix):
            raise UserError(f"{self.address} is open to others, and nothing is sent there: {'; '.join(found)}")

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        parameters: dict[str, Any] = {"Prefix": self._key(prefix), "MaxKeys": _PAGE}
        while True:
            page = self.client.call(f"list {self.address}", "list_objects_v2", **parameters)
            yield from (self._entry(found["Key"], found["Size"], found) for found in page.get("Contents", ()))
            if not page.get("IsTruncated"):
                return
            parameters["ContinuationToken"] = page["NextContinuationToken"]

    def entry(self, name: str) -> Entry | None:
        head = self._head(name)
        return self._entry(self._key(name), head["ContentLength"], head) if head else None

    def _entry(self, key: str, size: int, found: dict[str, Any]) -> Entry:
        return Entry(key.removeprefix(self.prefix), size, float(int(found["LastModified"].timestamp())))

    def _head(self, name: str) -> dict[str, Any] | None:
        what = f"look at {self._at(name)}"
        try:
            return self.client.call(what, "head_object", expected=(*MISSING, _FORBIDDEN), Key=self._key(name))
        except RefusalError as refusal:
            if refusal.code == _FORBIDDEN:  # an answer to HEAD has no room for the reason: ask in another way
                self.check()
                raise MachineError(f"cannot {what}: {self.client.host} does not allow it") from refusal
            return None

    def read(self, name: str, start: int, target: memoryview) -> None:
        filled = 0
        for block in Download(self.client, self._key(name), self._at(name), start, len(target)).blocks():
            target[filled : filled + len(block)] = block
            filled += len(block)

    def blocks(self, name: str) -> Iterator[bytes]:
        entry = self.entry(name)
        if entry is None:
            raise DamagedError(f"{self._at(name)} is missing")
        yield from Download(self.client, self._key(name), self._at(name), 0, entry.size).blocks()

    @cached_property
    def decides_races(self) -> bool:
        """Whether the service itself lets one of two writers of a new object win; tried, not believed.

        It does so for objects of one part, as manifests are. Larger ones are looked for before they are begun and
        again before they become visible: of two writers at the same moment the later one wins.
        """
        what = f"write {self.address} on condition"
        options: dict[str, Any] = {"Body": b"", "IfNoneMatch": "*", "expected": (*OTHERWISE, *_NO_CONDITIONS)}
        with probe(self.client, self.prefix) as key:
            try:
                self.client.call(what, "put_object", Key=key, **options)
                self.client.call(what, "put_object", Key=key, **options)
            except RefusalError as refusal:
                return refusal.code in OTHERWISE
        return False

    @cached_property
    def compares_signed_content(self) -> bool:
        """Whether the service compares what arrives with the SHA-256 that was signed; tried, not believed."""
        return compares_signed_content(self.client, self.prefix)

    def write(self, name: str, blocks: Iterable[Octets], size: int, *, new: bool = False) -> None:
        length = part_size(size, self._limits, self._smallest_part)
        parts = Parts(blocks, size, length)
        if new:
            self._check_absent(name)
        if size <= length:
            content = b"".join(parts)
            digests, etag = [md5(content)], self._write_at_once(name, content, new=new)
        else:
            digests, etag = self._write_in_parts(name, parts, length, new=new)
        if etag != etag_of(digests, in_parts=size > length):
            self._read_back(name, digests, size, length)

    def _check_absent(self, name: str) -> None:
        if self._head(name):
            raise AlreadyThereError(f"{self._at(name)} is there already")

    def _write_at_once(self, name: str, content: bytes, *, new: bool) -> str:
        """The stored object's ETag."""
        condition = {"IfNoneMatch": "*"} if new and self.decides_races else {}
        request = {"Key": self._key(name), "Body": content, "ContentMD5": header(md5(content))}
        try:
            answer = self.client.call(
                f"write {self._at(name)}", "put_object", expected=OTHERWISE, **request, **condition
            )
        except RefusalError as refusal:
            # What is in the way may be our own: of a try whose answer was lost.
            head = self._head(name) if refusal.after_silence else None
            if head is None or bare(head["ETag"]) != md5(content).hex():
                raise AlreadyThereError(f"{self._at(name)} is there already") from refusal
            answer = head
        return bare(answer["ETag"])

    def _write_in_parts(self, name: str, parts: Parts, length: int, *, new: bool) -> tuple[list[bytes], str]:
        """The MD5 of each part, and the stored object's ETag."""
        at_once = max(1, self._parts_at_once * self._smallest_part // length)
        what, signed = f"write {self._at(name)}", self.compares_signed_content
        with Upload(self.client, self._key(name), what, signed=signed) as upload:
            digests = upload.send(parts, at_once)
            if new:
                self._check_absent(name)
            return digests, bare(upload.complete(digests))

    def _read_back(self, name: str, digests: list[bytes], size: int, length: int) -> None:
        """MachineError, and the object is gone, where what was stored is not what was sent."""
        try:
            stored = [md5(part) for part in Parts(self.blocks(name), size, length)] if size else digests
        except DamagedError:
            stored = []
        if stored != digests:
            self.remove(name)
            raise MachineError(f"{self._at(name)} was stored otherwise than it was sent: it is removed again")

    def remove(self, name: str) -> None:
        self.client.call(f"remove {self._at(name)}", "delete_object", Key=self._key(name))

    def check_room(self, size: int, files: int) -> None:
        """Nothing is asked: S3 has no word for how much room there is. A quota speaks up when it is used up."""

    def clear_unfinished(self, prefix: str = "", *, older_than: float = 0.0) -> int:
        """End uploads of names that begin with `prefix`, begun at least `older_than` seconds ago and never finished.

        How many there were. Only where no other process writes such names. Uploads that a killed process leaves are
        paid for like objects, and no listing shows them.
        """
        what, ended = f"clear unfinished uploads at {self.address}", 0
        before = datetime.now(UTC) - timedelta(seconds=older_than)
        parameters: dict[str, Any] = {"Prefix": self._key(prefix)}
        while True:
            page = self.client.call(what, "list_multipart_uploads", **parameters)
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] <= before:
                    self.client.call(what, "abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])
                    ended += 1
            if not page.get("IsTruncated"):
                return ended
            parameters |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def close(self) -> None:
        self.client.close()

    def _key(self, name: str) -> str:
        return self.prefix + name

    def _at(self, name: str) -> str:
        return f"{self.address}/{name}"
