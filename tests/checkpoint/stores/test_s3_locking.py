"""Object lock is what becomes of a locked object, on a real Ceph gateway; nothing is left of the trial."""

from __future__ import annotations

from typing import Any

import pytest

from aiftrain.checkpoint.stores.s3.locking import object_lock
from aiftrain.checkpoint.stores.s3.store import S3Store
from tests.rigs.buckets import new_bucket, open_store
from tests.rigs.ceph import CephRig


def left(store: S3Store) -> list[Any]:
    """Versions and marks of removal in the bucket."""
    answer = store.client.once("list_object_versions")
    return [*answer.get("Versions", ()), *answer.get("DeleteMarkers", ())]


def test_a_bucket_that_locks(ceph: CephRig) -> None:
    store = open_store(ceph, new_bucket(ceph, "runs", ObjectLockEnabledForBucket=True))
    assert object_lock(store.client, store.prefix) == "holds"
    assert left(store) == []


def test_a_bucket_without_lock(ceph: CephRig) -> None:
    store = open_store(ceph, new_bucket(ceph))
    assert object_lock(store.client, store.prefix) == "none"
    assert left(store) == []


@pytest.mark.parametrize("versions", [True, False])
def test_a_service_that_answers_and_does_nothing(
    ceph: CephRig, versions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As LUMI-O: its answers are those to requests without a lock; all else is a real gateway's."""
    store = open_store(ceph, new_bucket(ceph))
    if versions:
        store.client.call("set", "put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    send = store.client.once

    def unlocked(operation: str, **parameters: Any) -> dict[str, Any]:
        return send(operation, **{key: value for key, value in parameters.items() if not key.startswith("ObjectLock")})

    monkeypatch.setattr(store.client, "once", unlocked)
    assert object_lock(store.client, store.prefix) == "claimed, without effect"
    assert left(store) == []
