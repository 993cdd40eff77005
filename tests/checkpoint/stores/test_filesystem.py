"""File systems are known by their mounts, and a new home on Lustre gets its stripes.

There is no Lustre here: the table of mounts is written by hand, and `lfs` is a script that notes its arguments.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from aiftrain.checkpoint.stores.filesystem import FileSystem, make_striped, stripes
from aiftrain.launch.home import make_home
from aiftrain.run.folder import RunFolder
from tests.conftest import small_execution, small_spec

GIB = 2**30


def mounts(folder: Path, kind: str) -> Path:
    """A table of mounts in which `folder` is of `kind`."""
    table = folder / "mounts"
    table.write_text(f"overlay / overlay rw 0 0\nserver:/volume {folder} {kind} rw 0 0\n")
    return table


@pytest.fixture
def lfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what looks like `lfs` notes how it was called."""
    program, called = tmp_path / "bin" / "lfs", tmp_path / "called"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {called}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return called


@pytest.mark.parametrize(
    ("kind", "title"),
    [
        ("lustre", "Lustre"),
        ("gpfs", "GPFS (Storage Scale)"),
        ("nfs4", "NFS"),
        ("ceph", "CephFS"),
        ("fuse.sshfs", "fuse.sshfs"),
        ("ext4", "ext4"),
    ],
)
def test_a_kind_is_named_as_people_name_it(tmp_path: Path, kind: str, title: str) -> None:
    found = FileSystem.of(tmp_path / "not" / "there", mounts(tmp_path, kind))
    assert str(found) == f"{title} at {tmp_path}" and not found.warning


def test_memory_is_warned_of(tmp_path: Path) -> None:
    assert "does not outlive it" in FileSystem.of(tmp_path, mounts(tmp_path, "tmpfs")).warning
    assert str(FileSystem.of(tmp_path, tmp_path / "no table")) == "unknown"


@pytest.mark.parametrize(("shard", "count"), [(0, 1), (16 * GIB - 1, 1), (16 * GIB, 4), (64 * GIB, 8), (999 * GIB, 8)])
def test_larger_shards_get_more_stripes(tmp_path: Path, lfs: Path, shard: int, count: int) -> None:
    home = tmp_path / "a läuf" / "checkpoints"
    assert make_striped(home, shard, mounts(tmp_path, "lustre")) == count == stripes(shard)
    assert home.is_dir()
    assert lfs.read_text().splitlines() == ["setstripe", "--stripe-count", str(count), str(home)]


def test_elsewhere_nothing_is_done(tmp_path: Path, lfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_striped(tmp_path / "home", GIB, mounts(tmp_path, "nfs4")) is None
    assert not lfs.exists() and not (tmp_path / "home").exists()
    monkeypatch.setenv("PATH", "/nowhere")
    assert make_striped(tmp_path / "home", GIB, mounts(tmp_path, "lustre")) is None
    assert not (tmp_path / "home").exists()


def test_an_lfs_that_fails_stops_nobody(tmp_path: Path, lfs: Path) -> None:
    (tmp_path / "bin" / "lfs").write_text("#!/bin/sh\nexit 1\n")
    assert make_striped(tmp_path / "home", GIB, mounts(tmp_path, "lustre")) is None
    assert (tmp_path / "home").is_dir()


def test_only_a_new_home_is_made_and_it_is_told(
    run_folder: RunFolder, lfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiftrain.checkpoint.stores.filesystem.file_system", lambda *_: ("/lustre", "lustre"))
    home = run_folder.checkpoints
    words = f"{home} is on Lustre: each file in it gets a stripe count of 1"
    assert make_home(small_spec(), small_execution().layout, run_folder) == words
    assert make_home(small_spec(), small_execution().layout, run_folder) is None
