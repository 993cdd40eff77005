"""Checkpoints at an archive: the same as at home, whole or not there, and home again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiftrain.checkpoint.archive import Archive, object_name, open_contents
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.fetch import Fetch, fetch
from aiftrain.checkpoint.manifest import MANIFEST
from aiftrain.checkpoint.shards import shard_name
from aiftrain.checkpoint.signing.bundle import SIGNATURE
from aiftrain.checkpoint.stores.base import AlreadyThereError
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.errors import DamagedError, MachineError, StoppedEarly, UserError
from tests.checkpoint.conftest import flip, let_decay, stop_after
from tests.checkpoint.shipping import carry

Save = Callable[[Catalog, int], Checkpoint]


def objects(archive: Archive, step: int) -> list[Path]:
    return sorted((Path(archive.store.address) / archive.place(step)).iterdir())


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_what_is_carried_is_there_and_reads_the_same(catalog: Catalog, archive: Archive, save: Save) -> None:
    entry = save(catalog, 7)
    assert archive.steps() == [] and archive.read(7) is None
    assert carry(entry, archive) == entry.manifest.size
    found = open_contents(archive.find(7))
    assert archive.steps() == [7]
    assert found.manifest == entry.manifest
    assert archive.verify(7) == []
    with found.reader() as reader:
        assert np.all(reader.read("matrix", "weight", 0, 30) == 7)
        assert list(reader.extra(0)["seed"]) == [0, 1, 2]
    assert objects(archive, 7)[0].read_bytes() == (entry.folder / MANIFEST).read_bytes()


def test_carrying_again_sends_nothing(catalog: Catalog, archive: Archive, save: Save) -> None:
    entry = save(catalog, 7)
    carry(entry, archive)
    before = [file.stat().st_ino for file in objects(archive, 7)]
    assert carry(entry, archive) == 0
    assert [file.stat().st_ino for file in objects(archive, 7)] == before


def test_a_carrier_goes_on_where_another_was_stopped(catalog: Catalog, archive: Archive, save: Save) -> None:
    entry = save(catalog, 7)
    first, second = entry.manifest.files
    with pytest.raises(StoppedEarly):
        carry(entry, archive, stop_after(first.size))
    assert archive.steps() == [] and archive.read(7) is None
    (arrived,) = objects(archive, 7)
    assert carry(entry, archive) == (second if arrived.name == object_name(first) else first).size


def test_what_decayed_before_the_commit_is_sent_again(catalog: Catalog, archive: Archive, save: Save) -> None:
    entry = save(catalog, 7)
    first, second = entry.manifest.files
    with pytest.raises(StoppedEarly):
        carry(entry, archive, stop_after(first.size))
    flip(objects(archive, 7)[0])
    assert carry(entry, archive) == first.size + second.size
    assert archive.verify(7) == []


@pytest.mark.parametrize(
    "harm", [flip, lambda file: os.truncate(file, 100), lambda file: os.truncate(file, 10_000), os.remove]
)
def test_what_is_damaged_at_home_never_gets_there(
    catalog: Catalog, archive: Archive, save: Save, harm: Callable[[Path], None]
) -> None:
    entry = save(catalog, 7)
    harm(entry.folder / shard_name(1))
    with pytest.raises(DamagedError, match=shard_name(1)):
        carry(entry, archive)
    assert archive.read(7) is None
    assert [file.name for file in objects(archive, 7)] == [object_name(entry.manifest.files[0])]


def test_a_store_that_does_not_keep_what_it_is_given_gets_no_commit(
    catalog: Catalog, archive: Archive, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_decay(archive.store, monkeypatch)
    with pytest.raises(MachineError, match="does not keep what it is given"):
        carry(save(catalog, 7), archive)
    assert archive.read(7) is None


@pytest.mark.parametrize("what", [MANIFEST, SIGNATURE])
def test_nor_is_a_commit_or_a_signature_taken_for_one_that_it_has_changed(
    catalog: Catalog, archive: Archive, save: Save, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    write = FolderStore.write

    def changed(store: FolderStore, name: str, blocks: Iterable[bytes], size: int, **how: Any) -> Any:
        content = b"".join(blocks)
        return write(store, name, [content[::-1] if name.endswith(what) else content], size, **how)

    monkeypatch.setattr(FolderStore, "write", changed)
    with pytest.raises(MachineError, match=f"{what} is not what was sent there"):
        carry(save(catalog, 7), archive)
        archive.put_signature(7, b"signed")


def test_a_manifest_at_another_steps_place_is_damage(catalog: Catalog, archive: Archive, save: Save) -> None:
    for step in (7, 8):
        carry(save(catalog, step), archive)
    shutil.copy(objects(archive, 7)[0], objects(archive, 8)[0])
    with pytest.raises(DamagedError, match=r"step-00000008/manifest\.json is of step 7"):
        archive.read(8)


def test_what_is_missing_is_named_where_it_is_read(catalog: Catalog, archive: Archive, save: Save) -> None:
    carry(save(catalog, 7), archive)
    objects(archive, 7)[1].unlink()
    with (
        open_contents(archive.find(7)).reader() as reader,
        pytest.raises(DamagedError, match=r"rank-00000.* is missing"),
    ):
        reader.read("matrix", "weight", 0, 30)


def test_a_signature_of_a_checkpoint_that_is_lost_is_refused(archive: Archive) -> None:
    with pytest.raises(MachineError, match="has lost its checkpoint of step 7"):
        archive.put_signature(7, b"signed")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_verify_names_the_object_that_is_damaged(catalog: Catalog, archive: Archive, save: Save, place: int) -> None:
    carry(save(catalog, 7), archive)
    harmed = objects(archive, 7)[place]
    flip(harmed)
    (fault,) = archive.verify(7)
    assert fault.file.partition(".")[0] == harmed.name.partition(".")[0]
    harmed.unlink()
    if place:  # without its manifest it is no checkpoint
        assert [fault.file.partition(".")[0] for fault in archive.verify(7)] == [harmed.name.partition(".")[0]]
    else:
        with pytest.raises(UserError, match="no complete checkpoint of step 7"):
            archive.verify(7)


def test_another_checkpoint_of_the_step_is_not_overwritten(
    catalog: Catalog, archive: Archive, save: Save, tmp_path: Path
) -> None:
    other = save(Catalog(tmp_path / "other"), 7)
    shutil.copytree(other.folder, tmp_path / "same" / other.folder.name)
    carry(other, archive)
    carry(Catalog(tmp_path / "same").find(7), archive)
    entry = save(catalog, 7)
    manifest = entry.manifest.model_copy(update={"time": 1.8e9})
    with pytest.raises(AlreadyThereError, match="another checkpoint of step 7"):
        carry(Checkpoint(entry.folder, manifest), archive)
    assert open_contents(archive.find(7)).manifest == other.manifest


def test_set_aside_it_no_longer_counts_and_makes_room_for_another(
    catalog: Catalog, archive: Archive, save: Save
) -> None:
    entry = save(catalog, 7)
    carry(entry, archive)
    archive.set_aside(7, "void")
    assert archive.steps() == [] and archive.read(7) is None
    assert len(objects(archive, 7)) == 3
    again = Checkpoint(entry.folder, entry.manifest.model_copy(update={"time": 1.8e9}))
    assert carry(again, archive) == 0
    assert open_contents(archive.find(7)).manifest == again.manifest


def test_removed_it_leaves_nothing_and_first_of_all_it_counts_no_more(
    catalog: Catalog, archive: Archive, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (7, 8):
        carry(save(catalog, step), archive)
    remove, counted = FolderStore.remove, list[bool]()

    def remove_and_look(store: FolderStore, name: str) -> None:
        was_there = store.entry(name) is not None
        remove(store, name)
        if was_there:
            counted.append(archive.read(7) is not None)

    monkeypatch.setattr(FolderStore, "remove", remove_and_look)
    archive.remove(7)
    assert archive.steps() == [8] and archive.objects(7) == []
    assert archive.verify(8) == []
    assert counted and not any(counted)


def test_fetched_it_is_at_home_what_it_was(catalog: Catalog, archive: Archive, save: Save, tmp_path: Path) -> None:
    entry = save(catalog, 7)
    carry(entry, archive)
    elsewhere = Catalog(tmp_path / "elsewhere")
    fetched = fetch(open_contents(archive.find(7)), elsewhere)
    assert content(fetched.folder) == content(entry.folder)
    assert elsewhere.verify(7) == []
    assert [path.name for path in elsewhere.folder.iterdir() if path.is_dir()] == ["step-00000007"]


def test_an_interrupted_fetch_is_no_checkpoint_and_goes_on(
    catalog: Catalog, archive: Archive, save: Save, tmp_path: Path
) -> None:
    entry = save(catalog, 7)
    carry(entry, archive)
    elsewhere = Catalog(tmp_path / "elsewhere")
    with pytest.raises(StoppedEarly):
        fetch(open_contents(archive.find(7)), elsewhere, stop_after(entry.manifest.files[0].size))
    assert elsewhere.latest() is None and elsewhere.remove_incomplete() == []
    objects(archive, 7)[1].unlink()  # rank 0's, which is home already
    fetch(open_contents(archive.find(7)), elsewhere)
    assert elsewhere.verify(7) == []


def test_of_a_damaged_checkpoint_only_the_damaged_files_are_fetched(
    catalog: Catalog, archive: Archive, save: Save
) -> None:
    entry = save(catalog, 7)
    carry(entry, archive)
    flip(entry.folder / shard_name(1))
    aside = catalog.set_aside(7)
    damaged = content(aside)
    objects(archive, 7)[1].unlink()  # rank 0's: it is good at home, so nobody misses it
    fetched = fetch(open_contents(archive.find(7)), catalog)
    assert catalog.verify(7) == [] and fetched.manifest == entry.manifest
    assert content(aside) == damaged, "the damaged one is no longer what it was"


def test_what_is_damaged_in_the_archive_does_not_come_home(
    catalog: Catalog, archive: Archive, save: Save, tmp_path: Path
) -> None:
    carry(save(catalog, 7), archive)
    flip(objects(archive, 7)[2])
    elsewhere = Catalog(tmp_path / "elsewhere")
    with pytest.raises(DamagedError, match=r"rank-00001\.[0-9a-f]{16}\.safetensors is damaged"):
        fetch(open_contents(archive.find(7)), elsewhere)
    assert elsewhere.latest() is None


def test_another_checkpoint_than_home_had_of_the_step_does_not_come_home(
    catalog: Catalog, archive: Archive, save: Save, tmp_path: Path
) -> None:
    entry, other = save(catalog, 7), save(Catalog(tmp_path / "other"), 7)
    later = Checkpoint(other.folder, other.manifest.model_copy(update={"time": 1.8e9}))
    carry(later, archive)
    shutil.rmtree(entry.folder)
    with pytest.raises(DamagedError, match="has another checkpoint of this step than home had"):
        fetch(open_contents(archive.find(7)), catalog)
    assert catalog.latest() is None


def test_nothing_goes_on_from_weights_alone(catalog: Catalog, archive: Archive, save: Save) -> None:
    entry = save(catalog, 7)
    weights = Checkpoint(entry.folder, entry.manifest.model_copy(update={"holds": "weights"}))
    carry(weights, archive)
    with pytest.raises(UserError, match="weights"):
        fetch(open_contents(archive.find(7)), catalog)


def test_what_other_fetches_left_is_forgotten(catalog: Catalog, archive: Archive, save: Save, tmp_path: Path) -> None:
    elsewhere = Catalog(tmp_path / "elsewhere")
    for step in (7, 8):
        carry(save(catalog, step), archive)
        Fetch(open_contents(archive.find(step)), elsewhere).begin()
        assert [path.name for path in elsewhere.folder.glob("fetching-*")] == [f"fetching-step-{step:08d}"]


def test_several_may_share_a_fetch(catalog: Catalog, archive: Archive, save: Save, tmp_path: Path) -> None:
    carry(save(catalog, 7), archive)
    elsewhere = Catalog(tmp_path / "elsewhere")
    shares = [Fetch(open_contents(archive.find(7)), elsewhere) for _ in range(2)]
    shares[0].begin()
    for number, share in enumerate(shares):
        list(share.files(open_contents(archive.find(7)).manifest.files[number::2]))
    shares[0].finish()
    assert elsewhere.verify(7) == []
