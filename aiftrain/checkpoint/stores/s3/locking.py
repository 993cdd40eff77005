"""Whether object lock holds: not what a service says of it, but what becomes of an object that is locked.

LUMI-O, for one, answers calls of object lock with success, and they have no effect
(docs.lumi-supercomputer.eu/storage/lumio/advanced).
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from aiftrain.checkpoint.stores.s3.client import Client
from aiftrain.checkpoint.stores.s3.faults import MISSING, RefusalError
from aiftrain.checkpoint.stores.s3.probe import probe
from aiftrain.checkpoint.stores.s3.upload import header, md5

ObjectLock = Literal["holds", "none", "claimed, without effect"]

_RETENTION = timedelta(minutes=1)
_CONTENT = b"locked"


def object_lock(client: Client, prefix: str) -> ObjectLock:
    """What becomes of a small object below `prefix` that is kept for a minute, when it is removed at once.

    Its lock is the one that its owner may break (GOVERNANCE), so that nothing is left of it.
    """
    with probe(client, prefix) as key:
        try:
            version = _write_locked(client, key)
        except RefusalError:
            return "none"
        place = {"Key": key} | ({"VersionId": version} if version else {})
        return "holds" if _stays(client, place) else "claimed, without effect"


def _write_locked(client: Client, key: str) -> str | None:
    """The object's version; None where the bucket has none."""
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": datetime.now(UTC) + _RETENTION}
    content: dict[str, Any] = {"Key": key, "Body": _CONTENT, "ContentMD5": header(md5(_CONTENT))}
    answer = client.call("write a locked object", "put_object", expected=None, **content, **lock)
    version: str | None = answer.get("VersionId")
    return version


def _stays(client: Client, place: dict[str, str]) -> bool:
    """Whether a version is there after its removal was asked for, whatever was answered to that."""
    with suppress(RefusalError):
        client.call("remove a locked object", "delete_object", expected=None, **place)
    try:
        client.call("look at a locked object", "head_object", expected=MISSING, **place)
    except RefusalError:
        return False
    return True
