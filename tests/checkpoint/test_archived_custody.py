"""An archive alone shows the chain: what was put back there is seen, and a new home goes on from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.checkpoint.archive import Archive, open_contents
from aiftrain.checkpoint.archived_custody import bring_custody, read_custody
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.custody import NAME
from aiftrain.checkpoint.fetch import Fetch, fetch
from aiftrain.checkpoint.manifest import MANIFEST
from aiftrain.checkpoint.places import Away
from aiftrain.checkpoint.sealing.keys import Identities, new_identity
from aiftrain.checkpoint.ship import Destination, Shipper
from aiftrain.errors import DamagedError
from tests.checkpoint.conftest import LINEAGE, flip
from tests.checkpoint.shipping import Watched, carry

Save = Callable[[Catalog, int], Checkpoint]


def ship(catalog: Catalog, archive: Archive) -> list[str]:
    """What failed."""
    destination = Destination(archive.store.address, lambda: archive)
    return [failure.message for failure in Shipper(catalog, [destination], Watched()).round()]


def custody_of(archive: Archive) -> Path:
    return Path(archive.address) / NAME


def faults(archive: Archive, step: int) -> str:
    return "; ".join(map(str, Away(archive).verify(step)))


@pytest.fixture
def shipped(catalog: Catalog, archive: Archive, save: Save) -> Archive:
    """An archive of a home with steps 1 and 2."""
    for step in (1, 2):
        save(catalog, step)
    assert ship(catalog, archive) == []
    return archive


@pytest.fixture
def elsewhere(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "elsewhere")


def test_the_shipper_keeps_it_as_home_has_it(catalog: Catalog, shipped: Archive) -> None:
    assert read_custody(shipped.store, LINEAGE) == catalog.custody.text() != b""
    assert {*json.loads(catalog.custody.text().splitlines()[1])} == {
        *("event", "step", "manifest", "parent", "attempt", "previous", "digest")
    }, "what a store's operator may not know"
    catalog.retain(keep_last=1)
    assert ship(catalog, shipped) == []
    assert read_custody(shipped.store, LINEAGE) == catalog.custody.text()
    assert faults(shipped, 1) == faults(shipped, 2) == ""


def test_it_is_there_before_a_checkpoint_is(
    catalog: Catalog, archive: Archive, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(catalog, 1)
    monkeypatch.setattr(archive, "commit", lambda _: pytest.fail(str(custody_of(archive).exists())))
    with pytest.raises(pytest.fail.Exception, match="True"):
        ship(catalog, archive)


def test_a_manifest_put_back_there_is_seen(shipped: Archive, elsewhere: Catalog) -> None:
    other = open_contents(shipped.find(2)).manifest.model_copy(update={"time": 1.0})
    (Path(shipped.store.address) / shipped.place(2) / MANIFEST).write_text(other.to_json(), encoding="utf-8")
    assert "custody.jsonl has the manifest" in faults(shipped, 2) and faults(shipped, 1) == ""
    with pytest.raises(DamagedError, match=r"custody\.jsonl has the manifest"):
        fetch(open_contents(shipped.find(2)), elsewhere)
    assert elsewhere.latest() is None and elsewhere.custody.text() == b""


def test_one_put_back_is_seen_though_it_is_sealed(
    catalog: Catalog, archive: Archive, save: Save, tmp_path: Path
) -> None:
    new_identity(tmp_path / "team")
    sealing = Archive(archive.store, LINEAGE, Identities.read(tmp_path / "team").public)
    entry = save(catalog, 1)
    carry(Checkpoint(entry.folder, entry.manifest.model_copy(update={"time": 1.0})), sealing)
    bring_custody(catalog.custody.text(), sealing)
    assert "custody.jsonl has the manifest" in faults(sealing, 1)


def test_one_that_the_run_went_back_from_is_seen(catalog: Catalog, shipped: Archive) -> None:
    catalog.set_aside(2, "void")
    assert ship(catalog, shipped) == []
    assert "has it as void" in faults(shipped, 2)


def test_a_new_home_goes_on_from_it(catalog: Catalog, shipped: Archive, elsewhere: Catalog, save: Save) -> None:
    fetched = fetch(open_contents(shipped.find(2)), elsewhere)
    assert elsewhere.custody.head == fetched.manifest.digest
    assert [line.event for line in elsewhere.custody.lines()] == ["saved", "saved", "fetched"]
    assert save(elsewhere, 3).manifest.parent == fetched.manifest.digest
    assert ship(elsewhere, shipped) == []
    assert read_custody(shipped.store, LINEAGE) == elsewhere.custody.text()
    assert ship(catalog, shipped) == [], "a home that is behind leaves it as it is"
    assert read_custody(shipped.store, LINEAGE) == elsewhere.custody.text()


def test_a_home_that_is_behind_catches_up(catalog: Catalog, shipped: Archive, elsewhere: Catalog, save: Save) -> None:
    fetch(open_contents(shipped.find(2)), elsewhere)
    third = save(elsewhere, 3)
    assert ship(elsewhere, shipped) == []
    assert catalog.custody.head != third.manifest.digest
    fetch(open_contents(shipped.find(3)), catalog)
    assert catalog.custody.head == third.manifest.digest


def test_a_home_with_a_past_of_its_own_keeps_it(
    catalog: Catalog, shipped: Archive, elsewhere: Catalog, save: Save
) -> None:
    shutil.copytree(save(catalog, 5).folder, elsewhere.step_folder(5))
    fetch(open_contents(shipped.find(2)), elsewhere)
    assert [(line.event, line.step) for line in elsewhere.custody.lines()] == [("adopted", 5), ("fetched", 2)]
    assert elsewhere.verify(5) == elsewhere.verify(2) == []


def test_what_does_not_go_on_from_it_is_told_once_and_both_stay(
    shipped: Archive, elsewhere: Catalog, save: Save
) -> None:
    theirs = custody_of(shipped).read_bytes()
    save(elsewhere, 3)
    (told,) = ship(elsewhere, shipped)
    assert "does not go on from the one that was there" in told
    (aside,) = custody_of(shipped).parent.glob(f"superseded.*.{NAME}")
    assert aside.read_bytes() == theirs
    assert read_custody(shipped.store, LINEAGE) == elsewhere.custody.text()
    assert ship(elsewhere, shipped) == []


def test_one_that_is_damaged_at_home_replaces_none_and_stops_nothing(
    catalog: Catalog, shipped: Archive, save: Save
) -> None:
    theirs = custody_of(shipped).read_bytes()
    save(catalog, 3)
    flip(catalog.custody.file, 30)
    (told,) = ship(catalog, shipped)
    assert "custody.jsonl is damaged in line 1" in told or "line 1 is not what was written" in told
    assert custody_of(shipped).read_bytes() == theirs and shipped.steps() == [1, 2, 3]


def test_one_that_is_damaged_there_is_told_and_not_heeded(shipped: Archive, elsewhere: Catalog) -> None:
    flip(custody_of(shipped), 30)
    assert "custody.jsonl is damaged" in faults(shipped, 1)
    with pytest.raises(DamagedError, match="Remove it there to go without"):
        fetch(open_contents(shipped.find(1)), elsewhere)
    assert "custody.jsonl is damaged" in Fetch(open_contents(shipped.find(1)), elsewhere).begin()
    assert elsewhere.custody.text() == b""
