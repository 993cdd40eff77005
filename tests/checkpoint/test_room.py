"""Room before a save, on file systems that are really full: retention goes first, and what is whole stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.room import make_room
from aiftrain.errors import MachineError
from tests.rigs.small_disk import needs_root, small_disk

pytestmark = needs_root
Save = Callable[[Catalog, int], Checkpoint]
MIB = 1 << 20


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Catalog]:
    """4 MiB and 24 names, of which the root takes one."""
    with small_disk(tmp_path / "disk", 4 * MIB, files=24) as folder:
        yield Catalog(folder / "checkpoints")


def fill(catalog: Catalog, step: int, size: int = MIB) -> None:
    """Make a checkpoint as large as that, in a file that its manifest does not know."""
    (catalog.step_folder(step) / "more").write_bytes(bytes(size))


def test_what_fits_removes_nothing(full: Catalog, save: Save) -> None:
    save(full, 1)
    assert make_room(full, MIB, 2, keep_last=1, keep_every=None) == []


def test_what_goes_after_the_save_goes_before_it_where_room_is_short(full: Catalog, save: Save) -> None:
    for step in (1, 2):
        save(full, step)
        fill(full, step)
    assert make_room(full, MIB + MIB // 2, 2, keep_last=2, keep_every=None) == [1]
    assert [entry.step for entry in full.entries()] == [2]


def test_what_was_interrupted_goes_before_any_checkpoint(full: Catalog, save: Save) -> None:
    save(full, 1)
    save(full, 2)
    full.step_folder(3).mkdir()
    fill(full, 3, 3 * MIB)
    assert make_room(full, MIB, 2, keep_last=2, keep_every=None) == []
    assert full.steps() == [1, 2]


@pytest.mark.parametrize(
    ("size", "shards", "told"),
    [(5 * MIB, 2, r"leaves \d\.\d{3} GB, and it takes 0\.006"), (1, 22, r"leaves \d+ files")],
)
def test_the_newest_stays_where_nothing_helps(full: Catalog, save: Save, size: int, shards: int, told: str) -> None:
    save(full, 1)
    with pytest.raises(MachineError, match=told):
        make_room(full, size, shards, keep_last=1, keep_every=None)
    assert full.verify(1) == []
    assert full.steps() == [1]
