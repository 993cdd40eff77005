"""Retention at home leaves what an archive lacks, so much of it, and as long as there is room."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.spool import Removed, retain
from aiftrain.run.storage import StorageSpec
from tests.checkpoint.shipping import Watched, shipper

Save = Callable[[Catalog, int], Checkpoint]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    return tmp_path / "archive"


@pytest.fixture
def storage(place: Path) -> StorageSpec:
    document = {"name": "local", "keep_last": 1, "keep_unshipped": 2, "archives": [str(place)]}
    return StorageSpec.model_validate(document)


def home(catalog: Catalog) -> list[int]:
    return [entry.step for entry in catalog.entries()]


def test_what_the_archive_lacks_stays_but_not_without_end(catalog: Catalog, save: Save, storage: StorageSpec) -> None:
    removed = []
    for step in (1, 2, 3, 4):
        save(catalog, step)
        removed += retain(catalog, storage)
    assert removed == [Removed(1, True), Removed(2, True)]
    assert home(catalog) == [3, 4]


def test_what_it_has_goes(catalog: Catalog, save: Save, storage: StorageSpec, place: Path) -> None:
    for step in (1, 2):
        save(catalog, step)
    assert retain(catalog, storage) == []
    shipper(catalog, [place], Watched()).round()
    save(catalog, 3)
    assert retain(catalog, storage) == [Removed(1, False), Removed(2, False)]


def test_a_run_without_archives_keeps_nothing_for_them(catalog: Catalog, save: Save) -> None:
    for step in (1, 2):
        save(catalog, step)
    assert retain(catalog, StorageSpec(name="local", keep_last=1)) == [Removed(1, False)]


def test_training_goes_on_where_there_is_no_room_for_both(
    catalog: Catalog, save: Save, storage: StorageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save(catalog, step)
    full = list(os.statvfs(catalog.folder))
    full[4] = 0  # f_bavail
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(full))
    assert retain(catalog, storage) == [Removed(1, True)]
    assert home(catalog) == [2], "the newest always stays"
