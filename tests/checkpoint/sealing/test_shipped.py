"""Sealed archives: carried there with public keys alone, known again, and home again with an identity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.checkpoint.archive import Archive, open_contents
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.fetch import fetch
from aiftrain.checkpoint.history import History, Rollback
from aiftrain.checkpoint.ledger import NAME as LEDGER
from aiftrain.checkpoint.rollbacks import write_rollbacks
from aiftrain.checkpoint.sealing.keys import IDENTITY_FILE, Identities
from aiftrain.checkpoint.ship import Destination, Shipper
from aiftrain.checkpoint.stores.base import AlreadyThereError
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.errors import UserError
from tests.checkpoint.conftest import LINEAGE, flip
from tests.checkpoint.shipping import Watched, carry

Save = Callable[[Catalog, int], Checkpoint]


@pytest.fixture(autouse=True)
def _no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that ships has none."""
    monkeypatch.delenv(IDENTITY_FILE, raising=False)


@pytest.fixture
def archive(tmp_path: Path, identities: Identities) -> Archive:
    (tmp_path / "archive").mkdir()
    return Archive(FolderStore(tmp_path / "archive"), LINEAGE, identities.public)


def objects(archive: Archive, step: int) -> list[Path]:
    return sorted((Path(archive.store.address) / archive.place(step)).iterdir())


def ship(catalog: Catalog, archive: Archive) -> Watched:
    watch = Watched()
    Shipper(catalog, [Destination(archive.store.address, lambda: archive)], watch).round()
    return watch


def test_who_has_an_identity_takes_it_home(
    catalog: Catalog,
    archive: Archive,
    save: Save,
    identity_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = save(catalog, 7)
    assert carry(entry, archive) == entry.manifest.size
    assert archive.steps() == [7] and archive.verify(7) == []
    monkeypatch.setenv(IDENTITY_FILE, str(identity_file))
    fetched = fetch(open_contents(archive.find(7)), Catalog(tmp_path / "elsewhere"))
    assert {file.name: file.read_bytes() for file in fetched.folder.iterdir()} == {
        file.name: file.read_bytes() for file in entry.folder.iterdir()
    }


def test_without_an_identity_it_is_checked_and_not_opened(
    catalog: Catalog, archive: Archive, save: Save, identities: Identities
) -> None:
    carry(save(catalog, 7), archive)
    with pytest.raises(UserError, match=rf"is sealed for {identities.public[0]}: .* {IDENTITY_FILE}"):
        open_contents(archive.find(7))
    for file in objects(archive, 7):
        flip(file)
        (fault,) = archive.verify(7)
        assert fault.file.partition(".")[0] == file.name.partition(".")[0]
        flip(file)


def test_a_shipper_knows_again_what_it_brought(catalog: Catalog, archive: Archive, save: Save) -> None:
    entry = save(catalog, 7)
    carry(entry, archive)  # and is killed before it notes that
    assert ship(catalog, archive).failures == []
    (catalog.folder / LEDGER).unlink()
    assert ship(catalog, archive).failures == []
    assert carry(entry, archive) == 0


def test_the_other_run_of_two_is_told(catalog: Catalog, archive: Archive, save: Save) -> None:
    entry = save(catalog, 7)
    carry(Checkpoint(entry.folder, entry.manifest.model_copy(update={"time": 1.8e9})), archive)
    with pytest.raises(AlreadyThereError, match="another checkpoint of step 7"):
        carry(entry, archive)
    (failure,) = ship(catalog, archive).failures
    assert failure.lasting and "another checkpoint of step 7" in failure.message


def test_sealing_begins_in_the_middle_of_a_run(catalog: Catalog, archive: Archive, save: Save) -> None:
    carry(save(catalog, 7), Archive(archive.store, LINEAGE))
    save(catalog, 8)
    assert [arrival.step for arrival in ship(catalog, archive).arrivals] == [8]
    assert archive.steps() == [7, 8] and archive.verify(7) == archive.verify(8) == []
    assert [file.name for file in objects(archive, 8) if not file.name.endswith((".sealed", "sealed.json"))] == []


def test_what_the_run_went_back_from_is_known_unopened(catalog: Catalog, archive: Archive, save: Save) -> None:
    back = Rollback(at_step=8, to_step=6, start=0, stop=8, trouble="loss", attempt=1, time=0.0)
    carry(save(catalog, 7), archive)
    since = save(catalog, 8)
    after = since.manifest.model_copy(update={"guard": History(rollbacks=(back,))})
    carry(Checkpoint(since.folder, after), archive)
    write_rollbacks(catalog, (back,))
    for step in (7, 8):
        catalog.set_aside(step)
    assert ship(catalog, archive).failures == []
    assert archive.steps() == [8]
    assert [file.name for file in objects(archive, 7) if file.name.startswith("void.")]
