"""The procedures of docs/sealing.md: a key is lost, changed, or in wrong hands; what lies in the clear is sealed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.checkpoint.archive import Archive, Archived
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.manifest import MANIFEST
from aiftrain.checkpoint.sealing import writing
from aiftrain.checkpoint.sealing.envelope import ENVELOPE, Envelope
from aiftrain.checkpoint.sealing.in_place import seal_in_place
from aiftrain.checkpoint.sealing.keys import Identities
from aiftrain.checkpoint.sealing.opened import open_blocks, open_checkpoint
from aiftrain.checkpoint.sealing.reseal import reseal, seal_anew
from aiftrain.checkpoint.sealing.stored import SealedCheckpoint
from aiftrain.checkpoint.sealing.writing import UNFINISHED
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.checkpoint.verify import Fault
from aiftrain.errors import DamagedError, StoppedEarly, UserError
from tests.checkpoint.conftest import flip, stop_after
from tests.checkpoint.shipping import carry

Save = Callable[[Catalog, int], Checkpoint]


def sealed_for(archive: Archive, recipients: list[str]) -> Archive:
    return Archive(archive.store, archive.lineage, recipients)


def found(archive: Archive) -> SealedCheckpoint:
    entry = archive.find(7)
    assert isinstance(entry, SealedCheckpoint)
    return entry


def folder(archive: Archive) -> Path:
    return Path(archive.store.address) / archive.place(7)


def objects(archive: Archive) -> dict[str, int]:
    """Names at the place of the checkpoint, and when each was written."""
    return {file.name: file.stat().st_mtime_ns for file in folder(archive).iterdir()}


@pytest.fixture
def sealed(catalog: Catalog, archive: Archive, save: Save, identities: Identities, stranger: Identities) -> Archive:
    """A checkpoint that two can open: one of them in escrow, say."""
    both = sealed_for(archive, [*identities.public, *stranger.public])
    carry(save(catalog, 7), both)
    return both


def test_a_key_is_lost_and_the_second_recipient_opens_and_reseals(
    sealed: Archive, stranger: Identities, successor: Identities
) -> None:
    assert open_checkpoint(found(sealed), stranger).verify() == []
    reseal(found(sealed), stranger, successor.public)
    assert open_checkpoint(found(sealed), successor).verify() == []


def test_a_key_is_changed_and_only_the_envelope_is_written(
    sealed: Archive, identities: Identities, successor: Identities
) -> None:
    (folder(sealed) / UNFINISHED).write_text(found(sealed).envelope.to_json())  # a kill has left it, with the old key
    before = objects(sealed)
    new = reseal(found(sealed), identities, successor.public)
    assert new == found(sealed) and new.envelope.recipients == successor.public
    assert {name for name, written in objects(sealed).items() if before.get(name) != written} == {ENVELOPE}
    assert objects(sealed).keys() == before.keys() - {UNFINISHED}
    with pytest.raises(UserError, match="was sealed for age1"):
        open_checkpoint(new, identities)
    assert open_checkpoint(new, successor).verify() == []


def test_who_kept_the_old_envelope_and_an_old_key_still_opens_what_was_only_resealed(
    sealed: Archive, identities: Identities, successor: Identities
) -> None:
    kept = found(sealed).envelope
    reseal(found(sealed), identities, successor.public)
    assert open_checkpoint(SealedCheckpoint(sealed.store, kept), identities).verify() == []


def test_a_key_is_in_wrong_hands_and_what_is_sealed_anew_opens_with_nothing_that_was_kept(
    sealed: Archive, identities: Identities, successor: Identities
) -> None:
    kept = found(sealed).envelope
    new = seal_anew(found(sealed), identities, successor.public)
    assert new == found(sealed) and open_checkpoint(new, successor).verify() == []
    assert not {file.stored for file in kept.files} & set(objects(sealed))
    for file in kept.files:  # its objects are gone, and its keys are those of no other object
        moved = file.model_copy(update={"stored": new.envelope.file(file.name).stored})
        forged = kept.model_copy(update={"files": [moved]})
        with pytest.raises(DamagedError):
            _read(SealedCheckpoint(sealed.store, forged), file.name, identities)


def _read(sealed: SealedCheckpoint, name: str, identities: Identities) -> None:
    for _ in open_blocks(sealed, name, identities):
        pass


def test_sealing_anew_goes_on_after_an_interruption_and_until_then_the_old_one_counts(
    sealed: Archive, identities: Identities, successor: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_NOTE_EVERY", 0.0)
    with pytest.raises(StoppedEarly):
        seal_anew(found(sealed), identities, successor.public, stop_after(1))
    assert open_checkpoint(found(sealed), identities).verify() == []
    new = seal_anew(found(sealed), identities, successor.public)
    assert objects(sealed).keys() == {ENVELOPE, *(file.stored for file in new.envelope.files)}


def whole(sealed: SealedCheckpoint) -> list[Fault]:
    return sealed.verify()


@pytest.fixture
def plain(catalog: Catalog, archive: Archive, save: Save, identities: Identities) -> Archive:
    """A checkpoint in the clear, in an archive that is sealed from now on."""
    carry(save(catalog, 7), archive)
    return sealed_for(archive, identities.public)


def test_what_lies_in_the_clear_is_sealed_and_nothing_of_it_stays(plain: Archive, identities: Identities) -> None:
    manifest = plain.find(7).digest
    assert seal_in_place(plain, 7, whole)
    opened = open_checkpoint(found(plain), identities)
    assert opened.manifest.digest == manifest and opened.verify() == []
    assert objects(plain).keys() == {ENVELOPE, *(file.stored for file in opened.sealed.envelope.files)}
    assert not seal_in_place(plain, 7, whole), "there is nothing more to do"


def test_before_the_sealed_one_is_good_the_plain_one_stays(plain: Archive) -> None:
    with pytest.raises(DamagedError, match="the plain one stays: rank-00000: bad"):
        seal_in_place(plain, 7, lambda _: [Fault("rank-00000", "bad")])
    entry = plain.read_plain(7)
    assert entry is not None and entry.verify() == []


class _Killed(Exception):
    pass


def test_a_kill_before_any_removal_loses_nothing_and_the_next_one_ends_it(
    plain: Archive, identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove, left = FolderStore.remove, 0

    def remove_some(self: FolderStore, name: str) -> None:
        nonlocal left
        if not left:
            raise _Killed
        left -= 1
        remove(self, name)

    for kept in (0, 0, 1, 2):  # before sealing.json goes; then two shards, and the manifest
        left = kept
        with monkeypatch.context() as patch, pytest.raises(_Killed):
            patch.setattr(FolderStore, "remove", remove_some)
            seal_in_place(plain, 7, whole)
        assert open_checkpoint(found(plain), identities).verify() == []
        assert MANIFEST in objects(plain)
    assert seal_in_place(plain, 7, whole)
    assert objects(plain).keys() == {ENVELOPE, *(file.stored for file in found(plain).envelope.files)}


def test_a_damaged_one_is_not_sealed(plain: Archive) -> None:
    entry = plain.read_plain(7)
    assert entry is not None
    flip(Path(plain.store.address) / entry.object(entry.manifest.files[0]))
    with pytest.raises(DamagedError, match=r"rank-00000.* is damaged"):
        seal_in_place(plain, 7, whole)
    assert isinstance(plain.find(7), Archived)


def test_a_sealed_one_of_another_run_is_not_taken_for_it(plain: Archive, catalog: Catalog, save: Save) -> None:
    seal_in_place(plain, 7, whole)
    envelope = found(plain).envelope.model_copy(update={"manifest": "0" * 64})
    (folder(plain) / ENVELOPE).write_text(Envelope.model_validate(envelope).to_json())
    other = Archive(plain.store, plain.lineage)
    other.commit(catalog.find(7).manifest)
    with pytest.raises(DamagedError, match="which are not the same"):
        seal_in_place(plain, 7, whole)


def test_there_has_to_be_one(plain: Archive) -> None:
    with pytest.raises(UserError, match="no complete checkpoint of step 8; complete steps: 7"):
        seal_in_place(plain, 8, whole)
