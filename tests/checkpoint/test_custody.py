"""custody.jsonl: a chain of lines that shows what was put back, changed or taken away, and takes a crash for none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.listing import verify
from aiftrain.errors import DamagedError

Save = Callable[[Catalog, int], Checkpoint]


def events(catalog: Catalog) -> list[tuple[str, int]]:
    return [(line.event, line.step) for line in catalog.custody.lines()]


def faults(catalog: Catalog, step: int) -> str:
    return "; ".join(map(str, catalog.verify(step)))


def forget_last_line(catalog: Catalog) -> None:
    lines = catalog.custody.file.read_bytes().splitlines(keepends=True)
    catalog.custody.file.write_bytes(b"".join(lines[:-1]))


def test_every_save_goes_on_from_the_one_before(catalog: Catalog, save: Save) -> None:
    one, two = save(catalog, 1), save(catalog, 2)
    three = save(Catalog(catalog.folder), 3)  # by a later start
    assert [each.manifest.parent for each in (one, two, three)] == [None, one.manifest.digest, two.manifest.digest]
    assert catalog.retain(keep_last=1) == [1, 2]
    catalog.set_aside(3)
    assert events(catalog) == [("saved", 1), ("saved", 2), ("saved", 3), ("removed", 1), ("removed", 2), ("damaged", 3)]


def test_after_a_rollback_it_goes_on_from_where_the_run_went_back_to(catalog: Catalog, save: Save) -> None:
    one, _ = save(catalog, 1), save(catalog, 2)
    catalog.custody.add("rollback", 1, one.manifest, attempt=2)
    catalog.set_aside(2, "void")
    again = save(catalog, 2)
    assert again.manifest.parent == one.manifest.digest
    assert catalog.verify(2) == []


def test_a_checkpoint_put_back_is_seen(catalog: Catalog, save: Save) -> None:
    one, _, old = (save(catalog, step) for step in (1, 2, 3))
    catalog.custody.add("rollback", 1, one.manifest)
    catalog.set_aside(2, "void")
    aside = catalog.set_aside(3, "void")
    shutil.copytree(aside, old.folder)
    assert "void: the run went back to before it" in faults(catalog, 3)
    shutil.rmtree(old.folder)
    save(catalog, 3)
    assert catalog.verify(3) == []
    shutil.rmtree(old.folder)
    shutil.copytree(aside, old.folder)
    assert "it was put back" in faults(catalog, 3)


def test_a_checkpoint_of_unknown_origin_is_seen(catalog: Catalog, save: Save) -> None:
    save(catalog, 1)
    other = Catalog(catalog.folder.parent / "other")
    save(other, 4)
    save(other, 5)
    shutil.copytree(other.step_folder(5), catalog.step_folder(5))
    assert "knows of no checkpoint of this step" in faults(catalog, 5)
    catalog.adopt()
    assert "knows of no checkpoint of this step" in faults(catalog, 5)


def test_a_save_killed_before_its_line_is_no_fault_and_gets_it_at_the_next_start(catalog: Catalog, save: Save) -> None:
    save(catalog, 1)
    save(catalog, 2)
    forget_last_line(catalog)
    assert catalog.verify(2) == []
    Catalog(catalog.folder).adopt()
    Catalog(catalog.folder).adopt()
    assert events(catalog) == [("saved", 1), ("saved", 2)]


def test_a_line_cut_short_by_a_crash_is_dropped(catalog: Catalog, save: Save) -> None:
    save(catalog, 1)
    save(catalog, 2)
    file = catalog.custody.file
    file.write_bytes(file.read_bytes()[:-20])
    assert events(catalog) == [("saved", 1)]
    catalog.adopt()
    assert events(catalog) == [("saved", 1), ("saved", 2)]


def test_what_lay_there_before_custody_is_adopted(catalog: Catalog, save: Save) -> None:
    for step in (1, 2):
        save(catalog, step)
    catalog.custody.file.unlink()
    assert catalog.verify(2) == []
    fresh = Catalog(catalog.folder)
    fresh.adopt()
    assert events(fresh) == [("adopted", 1), ("adopted", 2)]
    assert save(fresh, 3).manifest.parent == fresh.find(2).manifest.digest


@pytest.mark.parametrize("change", ["edited", "left out", "exchanged", "no line"])
def test_a_line_that_is_not_what_was_written_is_seen(catalog: Catalog, save: Save, change: str) -> None:
    for step in (1, 2, 3):
        save(catalog, step)
    lines = catalog.custody.file.read_bytes().splitlines(keepends=True)
    changed = {
        "edited": [lines[0].replace(b'"attempt":', b'"attempt":1'), *lines[1:]],
        "left out": [lines[0], lines[2]],
        "exchanged": [lines[1], lines[0], lines[2]],
        "no line": [lines[0], b"{}\n", lines[2]],
    }[change]
    catalog.custody.file.write_bytes(b"".join(changed))
    with pytest.raises(DamagedError, match=r"custody\.jsonl is damaged"):
        catalog.custody.lines()
    assert "custody.jsonl is damaged" in faults(catalog, 3)
    catalog.custody.set_aside()
    catalog.adopt()
    assert catalog.verify(3) == []


@pytest.mark.parametrize("lose", [Path.unlink, lambda file: file.write_bytes(b"")])
def test_who_verifies_hears_that_custody_was_lost(catalog: Catalog, save: Save, lose: Callable[[Path], object]) -> None:
    save(catalog, 1), save(catalog, 2)
    lose(catalog.custody.file)
    assert [str(fault) for each in verify(catalog) for fault in each.faults] == [
        "custody.jsonl: lost: this checkpoint goes on from another one, and was recorded with it"
    ]
    catalog.adopt()
    assert not any(each.faults for each in verify(catalog))


def test_newer_checkpoints_that_vanished_are_known(catalog: Catalog, save: Save) -> None:
    for step in range(1, 6):
        save(catalog, step)
    catalog.retain(keep_last=3)
    assert [catalog.custody.account().vanished(step) for step in (5, 0)] == [[], [3, 4, 5]], "what was removed did not"
    for step in (4, 5):
        shutil.rmtree(catalog.step_folder(step))
    assert catalog.custody.account().vanished(3) == [4, 5]
    catalog.custody.add("resumed", 3, catalog.find(3).manifest)
    assert catalog.custody.account().vanished(3) == [], "it was said once"


def test_a_manifest_without_the_new_fields_stays_what_it_was(catalog: Catalog, save: Save) -> None:
    document = json.loads((save(catalog, 1).folder / "manifest.json").read_text(encoding="utf-8"))
    assert not {"parent", "weights", "layout", "data", "storage"} & document.keys()
