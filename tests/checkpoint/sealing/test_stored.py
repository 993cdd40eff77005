"""A sealed checkpoint in a store: whole or not there, read by who may, and nothing of it lost to an interruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aiftrain.checkpoint import several
from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.fetch import fetch
from aiftrain.checkpoint.manifest import MANIFEST
from aiftrain.checkpoint.progress import Progress, unwatched
from aiftrain.checkpoint.saved import saved_at_home
from aiftrain.checkpoint.sealing import writing
from aiftrain.checkpoint.sealing.envelope import ENVELOPE
from aiftrain.checkpoint.sealing.keys import Identities
from aiftrain.checkpoint.sealing.opened import open_checkpoint
from aiftrain.checkpoint.sealing.stored import SealedCheckpoint
from aiftrain.checkpoint.sealing.writing import UNFINISHED, seal_checkpoint
from aiftrain.checkpoint.shards import shard_name
from aiftrain.checkpoint.stores.base import AlreadyThereError
from aiftrain.checkpoint.verify import checked
from aiftrain.errors import DamagedError, MachineError, StoppedEarly, UserError
from tests.checkpoint.conftest import flip, let_decay, stop_after

Save = Callable[[Catalog, int], Checkpoint]


def seal(
    entry: Checkpoint, archive: Archive, recipients: list[str], progress: Progress = unwatched
) -> SealedCheckpoint:
    saved = saved_at_home(entry)
    return seal_checkpoint(
        archive.store,
        archive.place(entry.step),
        entry.manifest,
        lambda record: checked(saved.blocks(record), record, record.name, progress),
        recipients,
        progress,
    )


def found(archive: Archive, step: int) -> SealedCheckpoint:
    sealed = SealedCheckpoint.read(archive.store, archive.place(step))
    assert sealed is not None
    return sealed


def names(archive: Archive, step: int) -> set[str]:
    return {entry.name.rpartition("/")[2] for entry in archive.objects(step)}


def harm(archive: Archive, sealed: SealedCheckpoint, name: str) -> None:
    flip(Path(archive.store.address) / archive.place(sealed.step) / sealed.envelope.file(name).stored)


def test_who_has_an_identity_reads_it(
    catalog: Catalog, archive: Archive, save: Save, identities: Identities, tmp_path: Path
) -> None:
    entry = save(catalog, 7)
    assert SealedCheckpoint.read(archive.store, archive.place(7)) is None
    seal(entry, archive, identities.public)
    opened = open_checkpoint(found(archive, 7), identities)
    assert opened.manifest == entry.manifest and opened.verify() == []
    with opened.reader() as reader:
        assert np.all(reader.read("matrix", "weight", 0, 30) == 7)
    brought = fetch(opened, Catalog(tmp_path / "home"))
    assert brought.manifest == entry.manifest and Catalog(tmp_path / "home").verify(7) == []


def test_a_store_sees_no_word_and_no_number_of_it(
    catalog: Catalog, archive: Archive, save: Save, identities: Identities
) -> None:
    entry = save(catalog, 7)
    seal(entry, archive, identities.public)
    stored = b"".join(file.read_bytes() for file in Path(archive.store.address).rglob("*") if file.is_file())
    assert b"matrix" not in stored and np.full(4, 7, np.float32).tobytes() not in stored
    assert not any(record.sha256.encode() in stored for record in entry.manifest.files)


def test_who_has_none_can_tell_that_it_is_what_was_stored(
    catalog: Catalog, archive: Archive, save: Save, identities: Identities, stranger: Identities
) -> None:
    sealed = seal(save(catalog, 7), archive, identities.public)
    assert found(archive, 7).verify() == []
    with pytest.raises(UserError, match="was sealed for age1"):
        open_checkpoint(sealed, stranger)
    harm(archive, sealed, "rank-00001.safetensors")
    assert [fault.file for fault in sealed.verify()] == ["rank-00001.safetensors"]
    assert [fault.file for fault in open_checkpoint(sealed, identities).verify()] == ["rank-00001.safetensors"]


def test_a_sealed_checkpoint_is_never_overwritten(
    catalog: Catalog, archive: Archive, save: Save, identities: Identities
) -> None:
    entry = save(catalog, 7)
    first = seal(entry, archive, identities.public)
    with pytest.raises(AlreadyThereError):
        seal(entry, archive, identities.public)
    assert found(archive, 7) == first and open_checkpoint(first, identities).verify() == []


@pytest.fixture
def interrupted(
    catalog: Catalog, archive: Archive, save: Save, identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> Checkpoint:
    """A checkpoint at home, of which the first file is sealed in the archive, and noted; the second was under way."""
    monkeypatch.setattr(writing, "_NOTE_EVERY", 0.0)
    monkeypatch.setattr(several, "_AT_ONCE", 1)
    entry = save(catalog, 7)
    with pytest.raises(StoppedEarly):
        seal(entry, archive, identities.public, stop_after(entry.manifest.files[0].size))
    assert UNFINISHED in names(archive, 7) and SealedCheckpoint.read(archive.store, archive.place(7)) is None
    return entry


def test_an_interrupted_sealing_goes_on(interrupted: Checkpoint, archive: Archive, identities: Identities) -> None:
    before = names(archive, 7) - {UNFINISHED}
    sealed = seal(interrupted, archive, identities.public)
    assert before < names(archive, 7) == {ENVELOPE, *(file.stored for file in sealed.envelope.files)}
    assert open_checkpoint(sealed, identities).verify() == []


def test_what_decayed_or_was_for_others_is_sealed_anew(
    interrupted: Checkpoint, archive: Archive, identities: Identities, stranger: Identities
) -> None:
    (stored,) = names(archive, 7) - {UNFINISHED}
    flip(Path(archive.store.address) / archive.place(7) / stored)
    sealed = seal(interrupted, archive, identities.public)
    assert stored not in names(archive, 7)
    assert open_checkpoint(sealed, identities).verify() == []


def test_other_recipients_get_seals_of_their_own(
    interrupted: Checkpoint, archive: Archive, stranger: Identities
) -> None:
    (stored,) = names(archive, 7) - {UNFINISHED}
    assert open_checkpoint(seal(interrupted, archive, stranger.public), stranger).verify() == []
    assert stored not in names(archive, 7)


def test_a_store_that_does_not_keep_what_it_is_given_gets_no_commit(
    catalog: Catalog, archive: Archive, save: Save, identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_decay(archive.store, monkeypatch)
    with pytest.raises(MachineError, match="does not keep what it is given"):
        seal(save(catalog, 7), archive, identities.public)
    assert ENVELOPE not in names(archive, 7)


def test_what_is_missing_is_named_where_it_is_read(
    catalog: Catalog, archive: Archive, save: Save, identities: Identities
) -> None:
    sealed = seal(save(catalog, 7), archive, identities.public)
    lost = Path(archive.store.address) / archive.place(7) / sealed.envelope.file(shard_name(0)).stored
    with open_checkpoint(sealed, identities).reader() as reader:
        lost.unlink()
        with pytest.raises(DamagedError, match=f"{lost.name} is missing"):
            reader.read("matrix", "weight", 0, 30)


def test_an_envelope_of_elsewhere_is_damage(
    catalog: Catalog, archive: Archive, save: Save, identities: Identities
) -> None:
    folder = Path(archive.store.address)
    seal(save(catalog, 7), archive, identities.public)
    (folder / archive.place(7)).rename(folder / archive.place(8))
    with pytest.raises(DamagedError, match=f"is of {archive.place(7)}"):
        SealedCheckpoint.read(archive.store, archive.place(8))


def test_the_manifest_inside_is_that_of_the_envelope(
    catalog: Catalog, archive: Archive, save: Save, identities: Identities
) -> None:
    sealed = seal(save(catalog, 7), archive, identities.public)
    other = sealed.envelope.model_copy(update={"manifest": "0" * 64})
    with pytest.raises(DamagedError, match="not the one that the envelope speaks of"):
        open_checkpoint(SealedCheckpoint(archive.store, other), identities)
    fewer = sealed.envelope.model_copy(
        update={"files": [file for file in sealed.envelope.files if file.name != "rank-00001.safetensors"]}
    )
    with pytest.raises(DamagedError, match=r"differ in their files: rank-00001\.safetensors"):
        open_checkpoint(SealedCheckpoint(archive.store, fewer), identities)
    assert MANIFEST in {file.name for file in sealed.envelope.files}
