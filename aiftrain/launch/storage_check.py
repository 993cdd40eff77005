"""Does a place keep what it is given, and for nobody else? Each check is a row, and is tried rather than asked.

What is written for that is small, and gone afterwards.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from aiftrain.checkpoint.stores.base import Store
from aiftrain.checkpoint.stores.bucket import open_bucket
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.errors import DamagedError
from aiftrain.launch.doctor import Check, file_system_check
from aiftrain.run.storage import ArchiveSpec

if TYPE_CHECKING:
    from aiftrain.checkpoint.stores.s3.store import S3Store

_SIZE = 8 << 20  # bytes of the round trip
_SOON = 14  # days


def check_storage(spec: ArchiveSpec) -> list[Check]:
    """Every check of a folder or a bucket. UserError or MachineError where it cannot be opened at all."""
    return list(_folder(Path(spec.address)) if spec.is_folder else _bucket(open_bucket(spec)))


def _folder(folder: Path) -> Iterator[Check]:
    store = FolderStore(folder)
    store.check_room(_SIZE, 1)
    yield file_system_check(folder)
    yield _round_trip(store, f"aiftrain-check-{secrets.token_hex(8)}")


def _bucket(store: S3Store) -> Iterator[Check]:
    from aiftrain.checkpoint.stores.s3.probe import probe

    yield _certificate(store)
    yield Check("credentials", "ok", store.client.keys_from)
    yield _strangers(store)
    yield _races(store)
    yield _versions(store)
    yield _lock(store)
    with probe(store.client, store.prefix) as key:
        yield _round_trip(store, key.removeprefix(store.prefix))
    store.close()


def _certificate(store: S3Store) -> Check:
    until = store.client.certificate_until(f"look at {store.address}")
    soon = (until - datetime.now(UTC)).days < _SOON
    found = f"{store.client.host}, whose certificate is good until {until:%Y-%m-%d}"
    return Check("TLS", "warn" if soon else "ok", found, "it ends soon: tell its operator" * soon)


def _strangers(store: S3Store) -> Check:
    from aiftrain.checkpoint.stores.s3.public import openings

    found = openings(store.client, store.prefix)
    return Check("strangers", "fail" if found else "ok", "; ".join(found) or "may neither list nor read")


def _races(store: S3Store) -> Check:
    if store.decides_races:
        return Check("conditional writes", "ok", "of two writers of a new object one wins")
    advice = "have one shipper alone write there"
    return Check("conditional writes", "warn", "without effect: a new object may replace another", advice)


def _versions(store: S3Store) -> Check:
    from aiftrain.checkpoint.stores.s3.public import answer_to

    status = answer_to(store.client, "get_bucket_versioning").get("Status")
    found = "what is replaced or removed is kept, and paid for" if status == "Enabled" else "none are kept"
    return Check("versions", "ok", found)


def _lock(store: S3Store) -> Check:
    from aiftrain.checkpoint.stores.s3.locking import object_lock

    lock = object_lock(store.client, store.prefix)
    advice = "whoever has keys may remove what lies there: do not count on locks" if lock.startswith("claimed") else ""
    return Check("object lock", "warn" if advice else "ok", lock, advice)


def _round_trip(store: Store, name: str) -> Check:
    content = os.urandom(_SIZE)
    begin = time.monotonic()
    store.write(name, [content], _SIZE)
    written = time.monotonic()
    try:
        fault = _difference(store, name, content)
        read = time.monotonic()
    finally:
        store.remove(name)
    if not fault and store.entry(name) is not None:
        fault = "what is removed stays"
    rates = f"{_SIZE / 1e6 / (written - begin):,.0f} MB/s there, {_SIZE / 1e6 / (read - written):,.0f} back"
    found = f"{_SIZE >> 20} MiB came back as they were sent, and are removed ({rates})"
    return Check("round trip", "fail" if fault else "ok", fault or found)


def _difference(store: Store, name: str, content: bytes) -> str:
    digest = hashlib.sha256()
    try:
        for block in store.blocks(name):
            digest.update(block)
    except DamagedError as error:
        return str(error)
    return "" if digest.digest() == hashlib.sha256(content).digest() else "what comes back is not what was sent"
