"""Verification finds whatever is not as it was written, and names the file."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.listing import summaries, verify
from aiftrain.checkpoint.shards import shard_name
from aiftrain.errors import StoppedEarly, UserError

Save = Callable[[Catalog, int], Checkpoint]


def test_what_was_written_has_no_faults(catalog: Catalog, save: Save) -> None:
    save(catalog, 1)
    assert catalog.verify(1) == []


def test_who_watches_hears_of_every_byte_and_can_end_it(catalog: Catalog, save: Save) -> None:
    entry, heard = save(catalog, 1), list[int]()
    assert verify(catalog, watch=lambda step, size: heard.append)[0].faults == ()
    assert sum(heard) == entry.manifest.size

    def stop(_: int) -> None:
        raise StoppedEarly("enough")

    with pytest.raises(StoppedEarly):
        verify(catalog, watch=lambda step, size: stop)


def test_every_random_damage_is_found_in_its_file(catalog: Catalog, save: Save) -> None:
    """600 damages: a bit flipped, a byte replaced, the end cut off, or bytes added, anywhere in any file."""
    checkpoint = save(catalog, 1)
    dice = random.Random(0)
    for file in sorted(checkpoint.folder.iterdir()):
        content = file.read_bytes()
        for _ in range(200):
            file.write_bytes(damaged(content, dice))
            assert [fault.file for fault in catalog.verify(1)] == [file.name]
        file.write_bytes(content)
    assert catalog.verify(1) == []


def damaged(content: bytes, dice: random.Random) -> bytes:
    position = dice.randrange(len(content))
    kind = dice.choice(["flip", "replace", "cut", "add"])
    if kind == "cut":
        return content[:position]
    if kind == "add":
        return content + dice.randbytes(dice.randint(1, 9))
    mask = 1 << dice.randrange(8) if kind == "flip" else dice.randint(1, 255)
    return content[:position] + bytes([content[position] ^ mask]) + content[position + 1 :]


def test_faults_say_what_was_expected_and_found(catalog: Catalog, save: Save) -> None:
    checkpoint = save(catalog, 1)
    first, second = checkpoint.manifest.files
    content = (checkpoint.folder / first.name).read_bytes()
    (checkpoint.folder / first.name).write_bytes(content[:-1] + b"\x01")
    (checkpoint.folder / second.name).unlink()
    wrong, missing = catalog.verify(1)
    assert str(wrong).startswith(f"{first.name}: SHA-256 {first.sha256} was written, ")
    assert str(missing) == f"{second.name}: {checkpoint.folder / second.name} is missing"


def test_swapped_files_are_found(catalog: Catalog, save: Save) -> None:
    folder = save(catalog, 1).folder
    (folder / shard_name(0)).rename(folder / "aside")
    (folder / shard_name(1)).rename(folder / shard_name(0))
    (folder / "aside").rename(folder / shard_name(1))
    assert {fault.file for fault in catalog.verify(1)} == {shard_name(0), shard_name(1)}


def test_an_unknown_step_lists_the_known(catalog: Catalog, save: Save) -> None:
    save(catalog, 1)
    save(catalog, 5)
    with pytest.raises(UserError, match="no complete checkpoint of step 3; complete steps: 1, 5"):
        catalog.verify(3)


def test_the_list_tells_complete_from_incomplete_and_damaged(catalog: Catalog, save: Save) -> None:
    save(catalog, 1)
    (save(catalog, 2).folder / "manifest.json").write_text("{")
    (catalog.begin(3) / shard_name(0)).write_bytes(b"12345")
    complete, damaged, incomplete = summaries(catalog)
    assert (complete.step, complete.status, complete.tokens, complete.time) == (1, "complete", 28672, 1.75e9)
    assert complete.size == sum(path.stat().st_size for path in catalog.step_folder(1).iterdir())
    assert (damaged.step, damaged.status) == (2, "damaged") and "no valid JSON" in damaged.message
    assert (incomplete.step, incomplete.status, incomplete.size, incomplete.tokens) == (3, "incomplete", 5, None)


def test_all_are_verified_and_the_good_told_from_the_bad(catalog: Catalog, save: Save) -> None:
    with pytest.raises(UserError, match="no checkpoint to verify"):
        verify(catalog)
    for step in (1, 2):
        save(catalog, step)
    np.zeros(3).tofile(catalog.step_folder(2) / shard_name(0))
    good, bad = verify(catalog)
    assert (good.step, good.faults) == (1, ())
    assert (bad.step, [fault.file for fault in bad.faults]) == (2, [shard_name(0)])
    assert verify(catalog, 1) == [good]
