"""Which folders are of a FUSE program."""

from __future__ import annotations

from pathlib import Path

from aiftrain.run.mounts import fuse_program
from aiftrain.run.residency import mount_problems
from tests.conftest import small_spec

# As proc_pid_mounts(5) has it; the blank in a name is written as an octal number.
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
    table.write_text(MOUNTS, encoding="utf-8")
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


def test_here_too(tmp_path: Path) -> None:
    assert fuse_program(tmp_path) is None
    assert list(mount_problems(small_spec(), tmp_path)) == []
