"""A bucket as a store, on a real Ceph gateway over TLS: what is written is there, whole, once, and nothing else is."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from aiftrain.checkpoint.stores.base import AlreadyThereError
from aiftrain.checkpoint.stores.s3.signed_content import compares_signed_content
from aiftrain.checkpoint.stores.s3.store import S3Store
from aiftrain.errors import DamagedError, MachineError, UserError
from aiftrain.run.storage import ArchiveSpec
from tests.rigs.buckets import keys_of, new_bucket, open_store, service_of
from tests.rigs.ceph import CephRig

MIB = 2**20


@pytest.fixture(scope="module")
def archive(ceph: CephRig) -> ArchiveSpec:
    return new_bucket(ceph, "deep/prefix")


@pytest.fixture
def store(ceph: CephRig, archive: ArchiveSpec) -> Iterator[S3Store]:
    opened = open_store(ceph, archive)
    yield opened
    for entry in list(opened.entries()):
        opened.remove(entry.name)
    opened.close()


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def in_blocks(content: bytes, length: int) -> Iterator[memoryview]:
    """As a careless writer gives them: always the same buffer, filled again."""
    buffer = bytearray(length)
    for start in range(0, len(content), length):
        piece = content[start : start + length]
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]


def put(store: S3Store, name: str, content: bytes, **options: Any) -> None:
    store.write(name, in_blocks(content, 700_001), len(content), **options)


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 5 * MIB + 1, 23 * MIB + 7])
def test_what_is_written_is_read_again(store: S3Store, size: int) -> None:
    content = noise(size)
    put(store, "a/object-1.bin", content)
    assert b"".join(store.blocks("a/object-1.bin")) == content
    entry = store.entry("a/object-1.bin")
    assert entry is not None and (entry.name, entry.size) == ("a/object-1.bin", size)
    assert list(store.entries()) == [entry]
    assert store.clear_unfinished() == 0


def test_any_range_is_read(store: S3Store) -> None:
    content = noise(12 * MIB)
    put(store, "object", content)
    for start, length in ((0, 1), (5 * MIB - 1, 2), (12 * MIB - 9, 9), (3, 9 * MIB)):
        target = bytearray(length)
        store.read("object", start, memoryview(target))
        assert target == content[start : start + length]
    for start, length in ((12 * MIB, 1), (12 * MIB - 1, 2), (13 * MIB, 4)):
        with pytest.raises(DamagedError, match="damaged: it ends"):
            store.read("object", start, memoryview(bytearray(length)))


def test_what_is_not_there_is_damage_to_a_reader_and_nothing_to_others(store: S3Store) -> None:
    assert store.entry("none") is None
    assert list(store.entries("none")) == []
    store.remove("none")
    with pytest.raises(DamagedError, match=r"deep/prefix/none is missing"):
        store.read("none", 0, memoryview(bytearray(1)))
    with pytest.raises(DamagedError, match="none is missing"):
        next(store.blocks("none"))


def test_names_come_in_order_page_after_page_and_within_the_prefix(
    ceph: CephRig, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiftrain.checkpoint.stores.s3.store._PAGE", 10)
    names = sorted(f"step-{number:08d}/file" for number in range(25))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: put(store, name, b"x"), names))
    assert [entry.name for entry in store.entries()] == names
    assert [entry.name for entry in store.entries("step-0000000")] == names[:10]
    beside = open_store(ceph, ArchiveSpec(address=store.address.removesuffix("/prefix"), service=service_of(ceph)))
    assert next(beside.entries()).name == f"prefix/{names[0]}"


@pytest.mark.parametrize("promised", [10 * MIB, 12 * MIB])
def test_what_is_shorter_or_longer_than_promised_is_no_object(store: S3Store, promised: int) -> None:
    with pytest.raises(DamagedError, match="announced"):
        store.write("object", [noise(11 * MIB)], promised)
    assert store.entry("object") is None
    assert store.clear_unfinished() == 0, "the upload was aborted"


def test_of_racing_writers_of_a_new_object_one_wins(ceph: CephRig, store: S3Store) -> None:
    assert store.decides_races

    def race(writer: int) -> int | None:
        try:
            put(store, "manifest.json", noise(1000, writer), new=True)
            return writer
        except AlreadyThereError as error:
            assert "manifest.json is there already" in str(error)
            return None

    with ThreadPoolExecutor(12) as pool:
        [winner] = [number for number in pool.map(race, range(12)) if number is not None]
    assert b"".join(store.blocks("manifest.json")) == noise(1000, winner)
    put(store, "manifest.json", b"replaced")
    assert [entry.size for entry in store.entries()] == [8], "the probes are gone, and old content with them"


def test_a_new_large_object_never_replaces_one_that_is_there(store: S3Store) -> None:
    put(store, "shard", b"first")
    with pytest.raises(AlreadyThereError):
        put(store, "shard", noise(11 * MIB), new=True)

    def appears_meanwhile() -> Iterator[bytes]:
        yield noise(6 * MIB)
        put(store, "late", b"somebody else")
        yield noise(6 * MIB)

    with pytest.raises(AlreadyThereError):
        store.write("late", appears_meanwhile(), 12 * MIB, new=True)
    assert b"".join(store.blocks("late")) == b"somebody else"
    assert store.clear_unfinished() == 0


def test_parts_are_compared_with_what_was_signed_or_have_an_md5(
    ceph: CephRig, archive: ArchiveSpec, store: S3Store
) -> None:
    """Of a client that leaves its requests as they were signed nothing is refused: then it is taken not to compare."""
    assert store.compares_signed_content
    assert [entry.name for entry in store.entries()] == [], "the probe is gone"
    store.client.like = lambda kind: open_store(ceph, archive).client  # type: ignore[method-assign]
    assert not compares_signed_content(store.client, store.prefix)
    del store.compares_signed_content
    put(store, "object", noise(11 * MIB))
    assert b"".join(store.blocks("object")) == noise(11 * MIB)


def test_a_part_that_changes_on_its_way_is_sent_again(store: S3Store) -> None:
    assert store.compares_signed_content
    send, changed = store.client._transport.send, list[int]()

    def change_once(request: AWSPreparedRequest, **options: Any) -> AWSResponse:
        sent = request.body
        if sent and len(sent) == 5 * MIB and not changed:
            changed.append(1)
            request.body = bytes([sent[0] ^ 1]) + bytes(sent[1:])
        return send(request, **options)

    store.client._transport.send = change_once  # type: ignore[method-assign]
    put(store, "object", noise(11 * MIB))
    assert changed and b"".join(store.blocks("object")) == noise(11 * MIB)


def test_what_the_service_stores_otherwise_is_found_and_removed(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ETag is taken away; then the object is read back, and here somebody has changed it in between."""
    monkeypatch.setattr("aiftrain.checkpoint.stores.s3.store.bare", lambda etag: "encrypted by the service")
    put(store, "object", noise(11 * MIB))
    put(store, "small", b"small")

    def other(self: S3Store, name: str) -> Iterator[bytes]:
        yield noise(11 * MIB, seed=1)

    monkeypatch.setattr(S3Store, "blocks", other)
    with pytest.raises(MachineError, match="stored otherwise than it was sent"):
        put(store, "object", noise(11 * MIB))
    assert store.entry("object") is None and store.entry("small") is not None


def test_uploads_that_a_killed_process_left_are_cleared(ceph: CephRig, store: S3Store) -> None:
    for name in ("mine/a", "mine/b", "other"):
        store.client.call("begin", "create_multipart_upload", Key=f"deep/prefix/{name}")
    assert store.clear_unfinished("mine/", older_than=3600) == 0
    assert store.clear_unfinished("mine/") == 2
    assert store.clear_unfinished() == 1


def test_memory_is_bounded_whatever_the_objects_size(store: S3Store) -> None:
    """At most `parts_at_once` parts and the one that is filled are held."""
    import tracemalloc

    assert store.compares_signed_content  # which takes memory of its own, once
    tracemalloc.start()
    store.write("object", (bytes(MIB) for _ in range(60)), 60 * MIB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 5 * MIB + 4 * MIB
    digest = hashlib.sha256()
    for block in store.blocks("object"):
        digest.update(block)
    assert digest.digest() == hashlib.sha256(bytes(60 * MIB)).digest()


def test_users_cannot_see_each_others_buckets(ceph: CephRig, archive: ArchiveSpec) -> None:
    stranger = S3Store(archive, keys_of(ceph.users[1]), patience=1.0)
    with pytest.raises(UserError, match=r"does not allow it to these keys \(the rig's user b; AccessDenied\)"):
        stranger.check()
    with pytest.raises(UserError, match="AccessDenied"):
        stranger.entry("object")
