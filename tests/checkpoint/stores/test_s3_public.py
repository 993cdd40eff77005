"""A bucket that strangers may look into gets no checkpoint: ACLs and policies of a real Ceph gateway."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.ship import Destination, Shipper
from aiftrain.checkpoint.stores.s3.store import S3Store
from aiftrain.errors import UserError
from aiftrain.run.storage import ArchiveSpec
from tests.checkpoint.conftest import LINEAGE
from tests.checkpoint.shipping import Watched
from tests.rigs.buckets import keys_of, new_bucket, open_store
from tests.rigs.ceph import CephRig

Save = Callable[[Catalog, int], Checkpoint]


@pytest.fixture
def private(ceph: CephRig) -> Iterator[S3Store]:
    store = open_store(ceph, new_bucket(ceph, "runs"))
    yield store
    store.close()


def allow(store: S3Store, **statement: Any) -> None:
    """A policy of one statement: objects may be read, by those and under the conditions that `statement` names."""
    reading = {"Sid": "ours", "Effect": "Allow", "Action": "s3:GetObject"}
    resource = f"arn:aws:s3:::{store.client.bucket}/*"
    set_policy(store, reading | {"Resource": resource} | statement)


def set_policy(store: S3Store, *statements: dict[str, Any]) -> None:
    policy = {"Version": "2012-10-17", "Statement": statements}
    store.client.call("set a policy", "put_bucket_policy", Policy=json.dumps(policy))


def told(store: S3Store) -> str:
    with pytest.raises(UserError, match=f"^{store.address} is open to others, and nothing is sent there: ") as error:
        store.check_private()
    return str(error.value)


def test_a_private_bucket_is_private_and_nothing_is_left_of_the_look(private: S3Store) -> None:
    private.check_private()
    assert list(private.entries()) == []


@pytest.mark.parametrize(
    ("acl", "words", "found_by_strangers"),
    [
        ("public-read", "its ACL gives anybody READ", True),
        ("public-read-write", "its ACL gives anybody WRITE", True),
        ("authenticated-read", "its ACL gives every customer of the service READ", False),
    ],
)
def test_an_acl_that_lets_strangers_in(ceph: CephRig, acl: str, words: str, found_by_strangers: bool) -> None:
    store = open_store(ceph, new_bucket(ceph, ACL=acl))
    message = told(store)
    assert words in message and f"s3cmd setacl s3://{store.client.bucket} --acl-private" in message
    assert ("a request without keys lists it" in message) == found_by_strangers


@pytest.mark.parametrize(
    "statement",
    [{"Principal": "*"}, {"Principal": {"AWS": ["arn:aws:iam:::user/b", "*"]}}, {"Principal": {"AWS": "*"}}],
)
def test_a_policy_that_lets_anybody_read_objects(private: S3Store, statement: dict[str, Any]) -> None:
    allow(private, **statement)
    message = told(private)
    assert "its policy 'ours' allows anybody s3:GetObject" in message
    assert "a request without keys reads what lies there" in message and "lists it" not in message


@pytest.mark.parametrize(("network", "is_open"), [("127.0.0.0/8", True), ("192.0.2.0/24", False)])
def test_what_a_policy_allows_under_a_condition_is_tried(private: S3Store, network: str, is_open: bool) -> None:
    """Under a condition that we happen to meet, and one that we do not; nothing is told of either."""
    allow(private, Principal="*", Condition={"IpAddress": {"aws:SourceIp": network}})
    if is_open:
        assert told(private).count("to close it") == 1
    else:
        private.check_private()


def test_a_policy_for_another_member_is_no_opening(private: S3Store) -> None:
    allow(private, Principal={"AWS": ["arn:aws:iam:::user/b"]})
    private.check_private()
    allow(private, Principal="*", Effect="Deny", Action="s3:DeleteObject")
    private.check_private()


def test_strangers_are_found_by_who_may_read_neither_acl_nor_policy(ceph: CephRig, private: S3Store) -> None:
    bucket, member = f"arn:aws:s3:::{private.client.bucket}", {"AWS": ["arn:aws:iam:::user/b"]}
    objects = {"Effect": "Allow", "Action": ["s3:PutObject", "s3:DeleteObject"], "Resource": f"{bucket}/*"}
    everybody = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"{bucket}/*", "Principal": "*"}
    set_policy(private, objects | {"Principal": member}, everybody)
    archive = ArchiveSpec(address=private.address, service=private.client.service)
    message = told(S3Store(archive, keys_of(ceph.users[1])))
    assert "a request without keys reads what lies there" in message and message.count("to close it") == 1


def test_nothing_is_shipped_to_where_anybody_may_read(ceph: CephRig, catalog: Catalog, save: Save) -> None:
    save(catalog, 1)
    store = open_store(ceph, new_bucket(ceph, ACL="public-read"))
    with pytest.raises(UserError, match="is open to others"):
        Shipper(catalog, [Destination(store.address, lambda: Archive(store, LINEAGE))], Watched()).round()
    assert list(store.entries()) == []
