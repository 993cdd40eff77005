"""Which folders are of a FUSE program."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiftrain.run.mounts import fuse_program
from aiftrain.run.residency import mount_problems
from tests.conftest import small_spec

# As fstab(5) has it; the blank in a name is written as an octal number.
MOUNTS = r"""
/dev/sda1 / ext4 rw,relatime 0 0
10.0.0.1@o2ib:/scratch /scratch lustre rw 0 0
me@example.com: /home/me/far\040away fuse.sshfs rw,user_id=1000 0 0
mountpoint-s3 /bucket fuse rw 0 0
/dev/sdb1 /disk fuseblk rw 0 0
tmpfs /home/me/far\040away/near tmpfs rw 0 0
""".strip()


def test_the_nearest_mount_counts(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text(MOUNTS)
    programs = {
        "/home/me": None,
        "/home/me/far away/run/checkpoints": "sshfs",
        "/home/me/far away/near/x": None,
        "/home/me/far away2": None,
        "/scratch/run": None,
        "/bucket": "fuse",
        "/disk/x": None,
    }
    assert {folder: fuse_program(Path(folder), table) for folder in programs} == programs


def test_each_folder_of_a_run_is_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(mount_problems(small_spec(), tmp_path)) == []
    monkeypatch.setattr("aiftrain.run.residency.fuse_program", {Path("/far/archive"): "sshfs", tmp_path: "rclone"}.get)
    storage = {"name": "local", "path": "/home", "archives": ["/far/archive", "/near/archive"]}
    refused = {problem.where: problem.found for problem in mount_problems(small_spec(storage=storage), tmp_path)}
    assert set(refused) == {"run_dir", "storage.archives"}
    assert refused["storage.archives"].startswith("/far/archive is a file system of sshfs")
    named = small_spec(storage=storage, policy={"fuse": ["sshfs", "rclone"]})
    assert list(mount_problems(named, tmp_path)) == []
