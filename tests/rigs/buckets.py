"""Buckets of a Ceph rig, as aiftrain sees them."""

from __future__ import annotations

import secrets
from typing import Any

from aiftrain.checkpoint.stores.credentials import Credentials
from aiftrain.checkpoint.stores.gate import NoRedirects
from aiftrain.checkpoint.stores.s3.client import Client
from aiftrain.checkpoint.stores.s3.store import S3Store
from aiftrain.run.storage import ArchiveSpec, ServiceSpec
from tests.rigs.ceph import CephRig, User


def service_of(rig: CephRig, **changes: Any) -> ServiceSpec:
    facts = {"name": "rig", "title": "A rig", "endpoint": rig.endpoint, "ca_file": str(rig.ca_file), "location": "FI"}
    return ServiceSpec.model_validate(facts | changes)


def keys_of(user: User) -> Credentials:
    return Credentials(f"the rig's user {user.name}", user.access_key, user.secret_key)


def new_bucket(rig: CephRig, prefix: str = "", *, user: User | None = None, **options: Any) -> ArchiveSpec:
    """A bucket that nobody else uses, of the rig's first user; `options` of S3's CreateBucket."""
    name = f"bucket-{secrets.token_hex(6)}"
    client = Client(service_of(rig), name, keys_of(user or rig.users[0]), NoRedirects())
    client.call("make a bucket", "create_bucket", **options)
    client.close()
    return ArchiveSpec(address=f"s3://rig/{name}" + (f"/{prefix}" if prefix else ""), service=service_of(rig))


def open_store(rig: CephRig, archive: ArchiveSpec, **options: Any) -> S3Store:
    """The bucket with the keys of the rig's first user, little patience, and parts as small as S3 takes them."""
    return S3Store(archive, keys_of(rig.users[0]), **{"patience": 10.0, "smallest_part": 5 * 2**20} | options)
