"""The catalog: what counts as a checkpoint, what is cleared away, what retention keeps, and what it refuses."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiftrain.checkpoint.catalog import Catalog, Checkpoint, NoCheckpointError
from aiftrain.checkpoint.listing import verify
from aiftrain.checkpoint.manifest import FileRecord, Manifest
from aiftrain.checkpoint.shards import Fragment, shard_name, write_shard
from aiftrain.errors import DamagedError, MachineError, UserError

Save = Callable[[Catalog, int], Checkpoint]


def spoil(checkpoint: Checkpoint) -> None:
    (checkpoint.folder / "manifest.json").write_text("{")


def test_a_folder_that_is_not_there_has_no_checkpoints(catalog: Catalog) -> None:
    assert (catalog.entries(), catalog.latest(), catalog.remove_incomplete()) == ([], None, [])


def test_saved_checkpoints_are_listed_oldest_first(catalog: Catalog, save: Save) -> None:
    for step in (30, 4, 100):
        save(catalog, step)
    assert [entry.step for entry in catalog.entries()] == [4, 30, 100]
    latest = catalog.latest()
    assert latest is not None and latest.folder == catalog.folder / "step-00000100"
    assert np.all(latest.reader().read("matrix", "weight", 0, 30) == 100)


def test_without_a_manifest_there_is_no_checkpoint(catalog: Catalog, save: Save) -> None:
    save(catalog, 1)
    write_shard(catalog.begin(2) / shard_name(0), [], {})
    (catalog.step_folder(2) / "manifest.json.part").write_text('{"format": 1')
    assert [entry.step for entry in catalog.entries()] == [1]
    assert catalog.begin(3).is_dir()
    assert catalog.steps() == [1, 3]
    assert catalog.remove_incomplete() == [3]
    assert catalog.steps() == [1]


class Watched(Catalog):
    """A catalog beside which something happens between two looks at it."""

    meanwhile: Callable[[], object] | None = None

    def read(self, step: int) -> Checkpoint | None:
        found = super().read(step)
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            happens()
        return found


def test_a_checkpoint_completed_meanwhile_is_not_damaged(catalog: Catalog, save: Save) -> None:
    catalog.begin(1)
    watched = Watched(catalog.folder)
    watched.meanwhile = lambda: save(catalog, 1)
    assert watched.latest() is None
    assert watched.find().step == 1


def test_the_newest_is_found_though_another_is_saved_and_it_is_removed_meanwhile(catalog: Catalog, save: Save) -> None:
    save(catalog, 1)
    catalog.begin(2)
    watched = Watched(catalog.folder)
    watched.meanwhile = lambda: (save(catalog, 2), catalog.retain(keep_last=1))
    assert watched.find().step == 2


def test_what_is_removed_meanwhile_is_not_damaged(catalog: Catalog, save: Save) -> None:
    for step in (1, 2):
        save(catalog, step)
    watched = Watched(catalog.folder)
    watched.meanwhile = lambda: catalog.retain(keep_last=1)
    with pytest.raises(NoCheckpointError, match="no complete checkpoint of step 1; complete steps: 2"):
        watched.verify(1)
    save(catalog, 3)
    watched.meanwhile = lambda: catalog.retain(keep_last=1)
    assert [(each.step, each.faults) for each in verify(watched)] == [(3, ())]


def test_begin_empties_its_folder(catalog: Catalog) -> None:
    (catalog.begin(5) / "leftover").touch()
    assert list(catalog.begin(5).iterdir()) == []


def test_begin_never_overwrites_a_checkpoint(catalog: Catalog, save: Save) -> None:
    save(catalog, 5)
    with pytest.raises(UserError, match="step-00000005 is a complete checkpoint already"):
        catalog.begin(5)
    assert catalog.verify(5) == []


def test_commit_refuses_missing_and_short_shards(catalog: Catalog, make_manifest: Callable[..., Manifest]) -> None:
    folder = catalog.begin(7)
    record = write_shard(folder / shard_name(0), [], {"a": np.arange(9)})
    absent = FileRecord(name=shard_name(1), size=3, sha256="0" * 64)
    (folder / shard_name(0)).write_bytes(b"short")
    with pytest.raises(
        MachineError, match=rf"{record.size} bytes were written, 5 are there; .*{shard_name(1)} is missing"
    ):
        catalog.commit(make_manifest(files=[record, absent]))
    assert catalog.entries() == []


def test_commit_refuses_a_gap(catalog: Catalog, make_manifest: Callable[..., Manifest]) -> None:
    folder = catalog.begin(7)
    record = write_shard(folder / shard_name(0), [Fragment("norm", 1, {"weight": np.ones(3, np.float32)})], {})
    with pytest.raises(DamagedError, match="lacks weight of norm from element 0"):
        catalog.commit(make_manifest(files=[record], shapes={"norm": [4]}))
    assert catalog.latest() is None


def test_a_damaged_manifest_is_passed_over_and_never_removed(catalog: Catalog, save: Save) -> None:
    save(catalog, 1)
    spoil(save(catalog, 2))
    latest = catalog.latest()
    assert latest is not None and latest.step == 1
    assert catalog.remove_incomplete() == []
    catalog.begin(2)
    assert (catalog.folder / "damaged-step-00000002" / shard_name(0)).is_file()


def test_a_run_does_not_quietly_begin_again(catalog: Catalog, save: Save) -> None:
    spoil(save(catalog, 2))
    with pytest.raises(DamagedError, match=r"every checkpoint in .* is damaged: step-00000002"):
        catalog.latest()
    catalog.set_aside(2)
    with pytest.raises(DamagedError, match=r"damaged-step-00000002.* To begin again from step 0, move them"):
        catalog.latest()


def test_setting_aside_twice_keeps_both(catalog: Catalog, save: Save) -> None:
    for _ in range(2):
        save(catalog, 3)
        catalog.set_aside(3)
    assert sorted(path.name for path in catalog.folder.iterdir()) == [
        "custody.jsonl",
        "damaged-step-00000003",
        "damaged-step-00000003-2",
    ]


def test_a_manifest_of_another_step_is_damaged(catalog: Catalog, save: Save) -> None:
    save(catalog, 3).folder.rename(catalog.step_folder(4))
    with pytest.raises(DamagedError, match=r"step-00000004.* is of step 3"):
        catalog.read(4)


@settings(max_examples=20, deadline=None)
@given(
    steps=st.sets(st.integers(0, 40), min_size=1, max_size=8),
    keep_last=st.integers(1, 4),
    keep_every=st.none() | st.integers(1, 10),
)
def test_retention_keeps_the_last_and_every_nth(steps: set[int], keep_last: int, keep_every: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(Path(folder))
        for step in steps:
            catalog.begin(step)
            catalog.commit(_empty_manifest(step))
        removed = catalog.retain(keep_last, keep_every)
        kept = [entry.step for entry in catalog.entries()]
        newest = sorted(steps)[-keep_last:]
        assert kept == [s for s in sorted(steps) if s in newest or (keep_every and s % keep_every == 0)]
        assert sorted([*removed, *kept]) == sorted(steps)
        assert catalog.steps() == kept


def _empty_manifest(step: int) -> Manifest:
    return Manifest(
        step=step, optimizer_step=step, tokens=0, sources={}, time=0.0, attempt=1, world_size=1, run_digest="x",
        identity={}, versions={}, shapes={}, files=[],
    )  # fmt: skip


def test_retention_keeps_one_that_is_whole(catalog: Catalog, save: Save) -> None:
    for step in (1, 2, 3):
        save(catalog, step)
    (catalog.step_folder(3) / shard_name(1)).unlink()
    assert catalog.retain(keep_last=1) == [1]
    assert [entry.step for entry in catalog.entries()] == [2, 3]


def test_retention_needs_one_to_keep(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="the newest checkpoint always stays"):
        catalog.retain(keep_last=0)


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").touch()
    with pytest.raises(MachineError, match=r"step-00000001.*: Not a directory"):
        Catalog(tmp_path / "checkpoints").begin(1)


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """A folder this process may read and not write; root, who may write anywhere, becomes nobody for it."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    os.seteuid(os.getuid())
    for path in (folder, folder / "checkpoints", folder / "checkpoints" / "step-00000001"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_folder_is_told(locked_folder: Path, save: Save) -> None:
    catalog = Catalog(locked_folder / "checkpoints")
    save(catalog, 1)
    for folder in (locked_folder, catalog.folder, catalog.step_folder(1)):
        folder.chmod(0o555)
    if os.getuid() == 0:
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
    with pytest.raises(MachineError, match=r"cannot create .*step-00000002: permission denied: make it accessible"):
        catalog.begin(2)
    with pytest.raises(MachineError, match=r"cannot write .*rank-00002\.safetensors: permission denied"):
        write_shard(catalog.step_folder(1) / shard_name(2), [], {})
    assert catalog.verify(1) == []
