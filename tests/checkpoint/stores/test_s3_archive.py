"""Checkpoints in a bucket: shipped there, verified there, and home again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.checkpoint.archive import Archive, open_contents
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.fetch import fetch
from aiftrain.checkpoint.ship import Destination, Shipper
from aiftrain.checkpoint.stores.bucket import open_bucket
from aiftrain.errors import UserError
from aiftrain.run.storage import ArchiveSpec
from tests.checkpoint.conftest import LINEAGE, flip
from tests.checkpoint.shipping import Watched
from tests.rigs.buckets import new_bucket, open_store
from tests.rigs.ceph import CephRig

Save = Callable[[Catalog, int], Checkpoint]


def opened(spec: ArchiveSpec) -> Archive:
    return Archive(open_bucket(spec), LINEAGE)


def test_what_is_shipped_is_verified_there_and_comes_home(
    ceph: CephRig, catalog: Catalog, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, spec = ceph.users[0], new_bucket(ceph, "runs")
    monkeypatch.setenv("AIFTRAIN_S3_RIG_ACCESS_KEY_ID", user.access_key)
    monkeypatch.setenv("AIFTRAIN_S3_RIG_SECRET_ACCESS_KEY", user.secret_key)
    first, second = save(catalog, 1), save(catalog, 2)
    watch = Watched()
    shipper = Shipper(catalog, [Destination(spec.address, lambda: opened(spec))], watch)
    assert shipper.round() == [] and shipper.round() == []
    assert [arrival.step for arrival in watch.arrivals] == [2, 1], "newest first, and nothing twice"
    archive = opened(spec)
    assert archive.steps() == [1, 2] and archive.verify(1) == [] == archive.verify(2)
    home = Catalog(tmp_path / "elsewhere")
    assert fetch(open_contents(archive.find(2)), home).manifest == second.manifest
    assert home.verify(2) == []
    text = "".join(file.read_text() for file in catalog.folder.glob("*.json"))
    assert user.secret_key not in text and user.access_key not in text
    assert first.manifest == open_contents(archive.find(1)).manifest


def test_what_is_damaged_at_home_does_not_get_there(ceph: CephRig, catalog: Catalog, save: Save) -> None:
    entry, store = save(catalog, 1), open_store(ceph, new_bucket(ceph))
    flip(entry.folder / "rank-00000.safetensors")
    [failure] = Shipper(catalog, [Destination("there", lambda: Archive(store, LINEAGE))], Watched()).round()
    assert "rank-00000.safetensors" in failure.message
    assert [entry.name for entry in store.entries() if "rank-00000" in entry.name or "manifest" in entry.name] == []
    assert store.clear_unfinished() == 0


def test_without_keys_nothing_is_tried(ceph: CephRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    with pytest.raises(UserError, match="no keys for rig"):
        opened(new_bucket(ceph))
