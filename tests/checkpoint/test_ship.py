"""The shipper: all that home has gets to every archive, newest first, and only what is whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.history import Rollback
from aiftrain.checkpoint.ledger import NAME as LEDGER
from aiftrain.checkpoint.ledger import Ledger, unshipped
from aiftrain.checkpoint.rollbacks import set_void_aside, write_rollbacks
from aiftrain.checkpoint.ship import Destination, Shipper, shipping_lock
from aiftrain.checkpoint.stores.bucket import open_bucket
from aiftrain.errors import UserError
from aiftrain.run.storage import ArchiveSpec, ServiceSpec
from tests.checkpoint.conftest import LINEAGE, flip
from tests.checkpoint.shipping import Watched, at, carry, shipper

Save = Callable[[Catalog, int], Checkpoint]


@pytest.fixture
def watch() -> Watched:
    return Watched()


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    """Two archives."""
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    return folders


def test_everything_goes_everywhere_newest_first(
    catalog: Catalog, save: Save, places: list[Path], watch: Watched
) -> None:
    for step in (1, 2, 3):
        save(catalog, step)
    assert unshipped(catalog, map(str, places)) == [1, 2, 3]
    assert shipper(catalog, places, watch).round() == []
    order = [(step, place) for step in (3, 2, 1) for place in ("first", "second")]
    assert watch.path == order
    assert all(at(place).steps() == [1, 2, 3] and at(place).verify(2) == [] for place in places)
    assert unshipped(catalog, map(str, places)) == []
    assert shipper(catalog, places, watch).round() == []
    assert watch.path == order, "something was shipped twice"


def test_what_is_saved_meanwhile_comes_next(catalog: Catalog, save: Save, places: list[Path], watch: Watched) -> None:
    save(catalog, 1)
    save(catalog, 2)
    watch.before = {1: lambda: save(catalog, 3)}
    shipper(catalog, places[:1], watch).round()
    assert watch.path == [(2, "first"), (3, "first"), (1, "first")]


def test_the_archive_is_asked_and_not_the_ledger(
    catalog: Catalog, save: Save, places: list[Path], watch: Watched
) -> None:
    save(catalog, 1)
    shipper(catalog, places, watch).round()
    at(places[0]).remove(1)
    (catalog.folder / LEDGER).write_text("cut o", encoding="utf-8")
    assert shipper(catalog, places, watch).round() == []
    assert watch.path == [(1, "first"), (1, "second"), (1, "first")]
    assert {arrival.archive for arrival in Ledger(catalog.folder).arrivals} == set(map(str, places))


def test_a_damaged_checkpoint_stays_and_the_others_go(
    catalog: Catalog, save: Save, places: list[Path], watch: Watched
) -> None:
    for step in (1, 2):
        save(catalog, step)
    flip(catalog.step_folder(2) / "rank-00001.safetensors")
    (failure,) = shipper(catalog, places[:1], watch).round()
    assert (failure.step, failure.lasting) == (2, True) and "damaged" in failure.message
    assert at(places[0]).steps() == [1]
    assert unshipped(catalog, [str(places[0])]) == [2]


def test_what_retention_removes_meanwhile_is_no_failure(
    catalog: Catalog, save: Save, places: list[Path], watch: Watched
) -> None:
    save(catalog, 1)
    save(catalog, 2)
    watch.before = {2: lambda: shutil.rmtree(catalog.step_folder(1))}
    assert shipper(catalog, places[:1], watch).round() == []
    assert at(places[0]).steps() == [2]


def test_an_archive_out_of_reach_keeps_nothing_from_the_other(
    catalog: Catalog, save: Save, places: list[Path], watch: Watched
) -> None:
    save(catalog, 1)
    places[0].rmdir()
    (failure,) = shipper(catalog, places, watch).round()
    assert (failure.archive, failure.lasting) == (str(places[0]), False)
    assert watch.path == [(1, "second")]
    assert unshipped(catalog, map(str, places)) == [1]
    places[0].mkdir()
    assert shipper(catalog, places, watch).round() == []
    assert watch.path == [(1, "second"), (1, "first")]


def test_an_archive_without_keys_keeps_nothing_from_the_other(
    catalog: Catalog, save: Save, places: list[Path], watch: Watched
) -> None:
    save(catalog, 1)
    service = ServiceSpec(name="rig", title="A rig", endpoint="https://localhost:1")
    bucket = ArchiveSpec(address="s3://rig/bucket", service=service)
    keyless = Destination(bucket.address, lambda: Archive(open_bucket(bucket, environ={}), LINEAGE))
    folder = Destination(str(places[0]), partial(at, places[0]))
    (failure,) = Shipper(catalog, [keyless, folder], watch).round()
    assert (failure.archive, failure.lasting) == (bucket.address, True) and "no keys for rig" in failure.message
    assert watch.path == [(1, "first")]
    with pytest.raises(UserError, match="no keys for rig"):
        Shipper(catalog, [keyless], watch).round()


def test_an_archive_that_vanishes_on_the_way_is_left_alone_in_that_round(
    catalog: Catalog, save: Save, places: list[Path], watch: Watched
) -> None:
    for step in (1, 2, 3):
        save(catalog, step)
    watch.before = {3: lambda: places[0].rename(places[0].with_name("gone"))}
    (failure,) = shipper(catalog, places, watch).round()
    assert (failure.archive, failure.step) == (str(places[0]), 2)
    assert watch.path == [(3, "first"), (3, "second"), (2, "second"), (1, "second")]


def test_the_other_run_of_two_is_told(
    catalog: Catalog, save: Save, places: list[Path], watch: Watched, tmp_path: Path
) -> None:
    entry = save(catalog, 1)
    (tmp_path / "other").mkdir()
    other = Checkpoint(entry.folder, entry.manifest.model_copy(update={"time": 1.8e9}))
    carry(other, at(places[0]))
    (failure,) = shipper(catalog, places[:1], watch).round()
    assert failure.lasting and "another checkpoint of step 1" in failure.message
    assert at(places[0]).find(1).digest == other.manifest.digest


def test_a_damaged_commit_is_set_aside_and_replaced(
    catalog: Catalog, save: Save, places: list[Path], watch: Watched
) -> None:
    save(catalog, 1)
    shipper(catalog, places[:1], watch).round()
    flip(places[0] / at(places[0]).place(1) / "manifest.json")
    (catalog.folder / LEDGER).unlink()
    assert shipper(catalog, places[:1], watch).round() == []
    assert at(places[0]).verify(1) == []
    assert [arrival.sent for arrival in watch.arrivals][1:] == [0]


def test_what_the_run_went_back_from_no_longer_counts_there(
    catalog: Catalog, save: Save, places: list[Path], watch: Watched
) -> None:
    for step in (1, 2, 3):
        save(catalog, step)
    shipper(catalog, places[:1], watch).round()
    back = Rollback(at_step=3, to_step=1, start=0, stop=8, trouble="loss", attempt=1, time=0.0)
    write_rollbacks(catalog, (back,))
    set_void_aside(catalog)
    assert shipper(catalog, places[:1], watch).round() == []
    assert at(places[0]).steps() == [1]
    assert at(places[0]).rollbacks() == (back,)


def test_one_shipper_a_home(catalog: Catalog) -> None:
    with shipping_lock(catalog), pytest.raises(UserError, match="another shipper is at work"), shipping_lock(catalog):
        pass
    with shipping_lock(catalog):
        pass
