"""Rollbacks beside the checkpoints: which of these are void, what is left out, and that nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.history import History, Rollback
from aiftrain.checkpoint.manifest import Manifest, read_manifest
from aiftrain.checkpoint.rollbacks import NAME, read_rollbacks, set_void_aside, write_rollbacks
from aiftrain.errors import DamagedError

Save = Callable[[Catalog, int], Checkpoint]


def back(at_step: int, to_step: int, start: int, stop: int) -> Rollback:
    return Rollback(at_step=at_step, to_step=to_step, start=start, stop=stop, trouble="loss_spike", attempt=1, time=1.5)


def resave(catalog: Catalog, save: Save, step: int, *rollbacks: Rollback) -> None:
    """A checkpoint that knows of rollbacks."""
    entry = save(catalog, step)
    manifest = entry.manifest.model_copy(update={"guard": History(rollbacks=rollbacks)})
    (entry.folder / "manifest.json").write_text(manifest.to_json())


def test_checkpoints_that_the_run_went_back_from_are_set_aside(catalog: Catalog, save: Save) -> None:
    first, second = back(25, 10, 80, 208), back(35, 20, 300, 400)
    for step in (10, 20):
        save(catalog, step)
    assert set_void_aside(catalog) == []
    write_rollbacks(catalog, (first,))
    assert set_void_aside(catalog) == [20]
    assert catalog.steps() == [10] and (catalog.folder / "void-step-00000020" / "manifest.json").is_file()
    for step in (20, 30):
        resave(catalog, save, step, first)
    assert set_void_aside(catalog) == []
    write_rollbacks(catalog, (first, second))
    assert set_void_aside(catalog) == [30]
    resave(catalog, save, 30, first, second)
    assert set_void_aside(catalog) == [] and catalog.steps() == [10, 20, 30]
    assert read_rollbacks(catalog) == (first, second)


def test_void_checkpoints_go_once_the_run_has_come_as_far_again(catalog: Catalog, save: Save) -> None:
    for step in (10, 20, 30):
        save(catalog, step)
    for step in (20, 30):
        catalog.set_aside(step, "void")
    catalog.retain(1)
    assert len(list(catalog.folder.glob("void-*"))) == 2
    save(catalog, 25)
    catalog.retain(1)
    assert [folder.name for folder in catalog.folder.glob("void-*")] == ["void-step-00000030"]
    (catalog.folder / "void-step-00000030" / "manifest.json").unlink()  # as a removal leaves it that was killed
    save(catalog, 40)
    catalog.retain(1)
    assert catalog.steps() == [40] and not list(catalog.folder.glob("void-*"))


def test_void_checkpoints_are_no_checkpoints(catalog: Catalog, save: Save) -> None:
    for step in (10, 20):
        save(catalog, step)
    catalog.set_aside(20, "void")
    newest = catalog.latest()
    assert newest is not None and newest.step == 10
    assert catalog.latest(at_most=9) is None
    save(catalog, 20)
    assert catalog.set_aside(20, "void").name == "void-step-00000020-2"


def test_a_damaged_file_is_told(catalog: Catalog, save: Save) -> None:
    save(catalog, 10)
    write_rollbacks(catalog, (back(12, 10, 0, 8),))
    file = catalog.folder / NAME
    file.write_text(file.read_text()[:-20])
    with pytest.raises(DamagedError, match=r"rollbacks.json is damaged"):
        read_rollbacks(catalog)


def test_gaps_and_who_knows_more() -> None:
    one, other = back(20, 10, 80, 168), back(12, 10, 168, 192)
    past = History(losses=(2.0,), rollbacks=(one,))
    assert past.gaps == [(80, 168)]
    assert [past.left_out(sample) for sample in (0, 79, 80, 200)] == [0, 0, 88, 88]
    assert past.with_rollbacks((one, other)).gaps == [(80, 192)]
    assert past.with_rollbacks(()) == past


def test_the_guard_stands_in_the_manifest_to_the_last_bit(
    catalog: Catalog, save: Save, make_manifest: Callable[..., Manifest], tmp_path: Any
) -> None:
    file, past = tmp_path / "manifest.json", History(losses=(0.1 + 0.2, 1e-300), norms=(1 / 3, 2.0), skipped=3)
    file.write_text(make_manifest(guard=past).to_json())
    assert read_manifest(file).guard == past
    file.write_text(make_manifest().to_json())
    assert '"guard"' not in file.read_text(), "manifests from before there was a guard keep their digests"
    assert read_manifest(file).guard is None
