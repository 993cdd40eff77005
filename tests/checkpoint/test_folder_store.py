"""A folder as a store: objects whole or not at all, of two writers one, and a folder that is gone is not empty."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aiftrain.checkpoint.stores.base import AlreadyThereError
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.errors import DamagedError, MachineError


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    folder = tmp_path / "archive"
    folder.mkdir()
    return FolderStore(folder)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def put(store: FolderStore, name: str, content: bytes, *, new: bool = False) -> None:
    store.write(name, [content], len(content), new=new)


def test_what_is_written_is_there(store: FolderStore) -> None:
    store.write("a/b/c.bin", [b"one ", memoryview(b"two"), bytearray(b"!")], 8)
    assert b"".join(store.blocks("a/b/c.bin")) == b"one two!"
    part = bytearray(3)
    store.read("a/b/c.bin", 4, memoryview(part))
    assert part == b"two"
    entry = store.entry("a/b/c.bin")
    assert entry is not None
    assert (entry.name, entry.size) == ("a/b/c.bin", 8)
    assert abs(entry.modified - time.time()) < 60


def test_entries_come_in_the_order_of_their_names(store: FolderStore) -> None:
    all_names = ["run/step-2/b", "run/step-2/a", "run/step-10/a", "run/rollbacks.json", "run-2/a", "other"]
    for name in all_names:
        put(store, name, b"x")
    assert [entry.name for entry in store.entries()] == sorted(all_names)
    assert [entry.name for entry in store.entries("run/step-2")] == ["run/step-2/a", "run/step-2/b"]
    assert [entry.name for entry in store.entries("run/s")] == ["run/step-10/a", "run/step-2/a", "run/step-2/b"]
    assert list(store.entries("nothing/there/")) == []


def test_a_new_object_is_never_written_over_another(store: FolderStore) -> None:
    put(store, "commit", b"first", new=True)
    with pytest.raises(AlreadyThereError):
        put(store, "commit", b"second", new=True)
    assert b"".join(store.blocks("commit")) == b"first"
    put(store, "commit", b"third")
    assert b"".join(store.blocks("commit")) == b"third"
    assert names(store.folder) == ["commit"]


def test_an_interrupted_write_leaves_what_was_there(store: FolderStore) -> None:
    put(store, "object", b"before")

    def breaks_off() -> Iterator[bytes]:
        yield b"after"
        raise DamagedError("the source is damaged")

    with pytest.raises(DamagedError):
        store.write("object", breaks_off(), 10)
    with pytest.raises(ValueError, match="10 bytes were announced, 5 came"):
        store.write("object", [b"after"], 10)
    assert b"".join(store.blocks("object")) == b"before"
    assert names(store.folder) == ["object"]


def test_the_part_of_a_killed_writer_goes_and_that_of_a_living_one_stays(store: FolderStore) -> None:
    def hangs() -> Iterator[bytes]:
        yield b"half"
        written.touch()
        time.sleep(60)

    written = store.folder.parent / "written"
    writer = os.fork()
    if writer == 0:
        store.write("object", hangs(), 8)
        os._exit(0)
    while not written.exists():
        time.sleep(0.001)
    put(store, "object", b"of another")
    assert len(names(store.folder)) == 2, "the part of a living writer was removed"
    assert [entry.name for entry in store.entries()] == ["object"]
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    put(store, "object", b"once more")
    assert names(store.folder) == ["object"]


def test_an_empty_part_goes_when_it_is_old(store: FolderStore) -> None:
    part = store.folder / ".object.0123abcd.part"
    part.touch()
    put(store, "object", b"x")
    assert part.exists(), "its writer may be about to lock it"
    os.utime(part, (0, 0))
    put(store, "object", b"x")
    assert names(store.folder) == ["object"]


def test_removing_leaves_no_folder_behind(store: FolderStore) -> None:
    put(store, "run/step-1/a", b"x")
    put(store, "run/step-2/a", b"x")
    store.remove("run/step-1/a")
    store.remove("run/step-1/a")
    assert names(store.folder / "run") == ["step-2"]
    store.remove("run/step-2/a")
    assert names(store.folder) == []


def test_what_is_missing_or_short_is_damage(store: FolderStore) -> None:
    put(store, "object", b"short")
    for read in (lambda: store.read("object", 3, memoryview(bytearray(5))), lambda: list(store.blocks("run/none"))):
        with pytest.raises(DamagedError):
            read()
    assert store.entry("run/none") is None
    assert store.entry("object/below") is None


def test_a_folder_that_is_gone_is_neither_empty_nor_damaged(store: FolderStore, tmp_path: Path) -> None:
    """As where a file system is no longer mounted: a run must not begin again because its archive looks empty."""
    put(store, "object", b"x")
    store.folder.rename(tmp_path / "elsewhere")
    calls: list[Callable[[], object]] = [
        lambda: store.entry("object"),
        lambda: list(store.entries()),
        lambda: list(store.blocks("object")),
        lambda: store.read("object", 0, memoryview(bytearray(1))),
        lambda: put(store, "object", b"y"),
        lambda: store.remove("object"),
        lambda: FolderStore(store.folder),
    ]
    for call in calls:
        with pytest.raises(MachineError, match="there is no folder") as caught:
            call()
        assert not isinstance(caught.value, DamagedError)
    assert not store.folder.exists()


def test_what_does_not_fit_is_refused_before(store: FolderStore) -> None:
    store.check_room(1, 1)
    with pytest.raises(MachineError, match="has room for"):
        store.check_room(1 << 60, 1)
    with pytest.raises(MachineError, match="files"):
        store.check_room(1, 1 << 60)


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../b", "a//b", "", ".hidden", "a/.part", "a\nb"])
def test_no_name_leads_out(store: FolderStore, name: str) -> None:
    with pytest.raises(ValueError, match="no name of an object"):
        put(store, name, b"x")


def test_what_killed_writers_left_is_cleared_and_what_lives_stays(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write("a/name", [b"x"], 1)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / ".gone.sealed.0123abcd.part").write_bytes(b"half")

    def blocks() -> Iterator[bytes]:
        yield b"some"
        assert store.clear_unfinished("a/") == 1
        yield b"more"

    store.write("a/living", blocks(), 8)
    assert sorted(file.name for file in tmp_path.glob("*/.*")) == [".gone.sealed.0123abcd.part"]
    assert [entry.name for entry in store.entries()] == ["a/living", "a/name"]
