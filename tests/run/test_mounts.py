"""Which folders are of a FUSE program."""

from __future__ import annotations

from pathlib import Path

from aiftrain.run.mounts import fuse_program
from aiftrain.run.residency import mount_problems
from tests.conftest import small_spec

# As proc_pid_mountinfo(5) has it; the blank in a name is written as an octal number.
MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:40 / /scratch rw shared:2 master:7 - lustre 10.0.0.1@o2ib:/scratch rw
41 22 0:41 / /home/me/far\040away rw,nosuid - fuse.sshfs me@example.com: rw,user_id=1000
42 22 0:42 / /bucket rw - fuse mountpoint-s3 rw
43 22 0:43 / /disk rw - fuseblk /dev/sdb1 rw
44 41 0:44 / /home/me/far\040away/near rw - tmpfs tmpfs rw
""".strip()


def test_the_nearest_mount_counts() -> None:
    programs = {
        "/home/me": None,
        "/home/me/far away/run/checkpoints": "sshfs",
        "/home/me/far away/near/x": None,
        "/home/me/far away2": None,
        "/scratch/run": None,
        "/bucket": "fuse",
        "/disk/x": None,
    }
    assert {folder: fuse_program(Path(folder), MOUNTS) for folder in programs} == programs


def test_here_too(tmp_path: Path) -> None:
    assert fuse_program(tmp_path) is None
    assert list(mount_problems(small_spec(), tmp_path)) == []
