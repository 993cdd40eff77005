"""Quotas: answers as lfs and quota print them, and what comes of those that are not understood.

Neither a Lustre nor a kernel with quotas is here: programs that print what the manuals show stand in for both.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aiftrain.run.quota import Room, quotas, read_quotas

PROJECT = """Disk quotas for prj 200020 (pid 200020):
     Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace
/scratch/project/a folder with a long name
                 1000000       0 5000000       -    5678       0   10000       -
pid 200020 is using default block quota setting
"""


@pytest.mark.parametrize(
    ("row", "octets", "files"),
    [
        ("/scratch 1000 0 3000 - 40 0 100 -", 2000 * 1024, 60),
        ("/scratch 1000 2000 3000 - 40 50 0 -", 2000 * 1024, 10),  # only the one that may be exceeded is set
        ("/scratch 3001* 2000 3000 6d23h59m 40 0 0 -", 0, None),
        ("/scratch [1000] 0 3000 - [40] 0 100 -", None, None),  # not exact
        ("/dev/vda1 1000 0 3000 0 40 0 100 0", 2000 * 1024, 60),  # quota -p
        ("/scratch 1.5G 0k 13.57T - 40 0 100 -", None, None),  # for people: no number of KiB
    ],
)
def test_a_row_of_numbers(row: str, octets: int | None, files: int | None) -> None:
    found = list(
        read_quotas(f"Disk quotas for usr ann (uid 7):\n  Filesystem kbytes quota limit grace files\n  {row}\n")
    )
    assert found in ([("usr", 7, Room(octets, files, "the quota of usr ann"))], [])
    assert bool(found) == ("13.57T" not in row)


def test_several_owners_and_words_between_them() -> None:
    group = "Disk quotas for group team (gid 100): none\n"
    user = "Disk quotas for user ann (uid 7): \n  Filesystem blocks quota limit\n  /dev/vda1 1 0 3 0 4 0 5 0\n"
    rooms = {kind: room for kind, _, room in read_quotas(PROJECT + group + user)}
    assert rooms == {
        "prj": Room(4_000_000 * 1024, 4322, "the quota of prj 200020"),
        "user": Room(2 * 1024, 1, "the quota of user ann"),
    }
    assert list(read_quotas("")) == list(read_quotas("lfs: cannot resolve path\n")) == []


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    """A table of mounts in which `tmp_path`/scratch is a Lustre, and all else is of a kind that quota asks."""
    file = tmp_path / "mounts"
    (tmp_path / "scratch").mkdir()
    file.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/lustre {tmp_path}/scratch lustre rw 0 0\n")
    return file


def program(folder: Path, name: str, body: str) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
    (folder / "bin" / name).chmod(0o755)


def test_lustre_is_asked_for_user_group_and_project(
    mounts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    answers = f'[[ $1 == project ]] && echo "200020 P $3"; [[ $2 == -p ]] && cat <<E\n{PROJECT}E'
    program(tmp_path, "lfs", f'echo "$@" >> {tmp_path}/called; {answers}\nexit 0')
    scratch = tmp_path / "scratch"
    assert quotas(scratch, mounts) == [Room(4_000_000 * 1024, 4322, "the quota of prj 200020")]
    assert (tmp_path / "called").read_text().splitlines() == [
        f"project -d {scratch}",
        f"quota -u {os.getuid()} {scratch}",
        f"quota -g {os.getgid()} {scratch}",
        f"quota -p 200020 {scratch}",
    ]


def test_elsewhere_quota_is_asked_and_groups_that_files_are_not_of_do_not_count(
    mounts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    row = "  Filesystem blocks quota limit grace files quota limit grace\n  /dev/vda 1 0 3 0 4 0 5 0"
    groups = "\n".join(f"Disk quotas for group g{gid} (gid {gid}):\n{row}" for gid in (os.getgid(), 4711))
    program(tmp_path, "quota", f'[[ "$*" == "-wp -g -f /" ]] && cat <<E\n{groups}\nE\nexit 1')
    assert [room.limit for room in quotas(tmp_path, mounts)] == [f"the quota of group g{os.getgid()}"]


def test_what_hangs_or_is_missing_is_left_out(mounts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    assert quotas(tmp_path / "scratch", mounts) == []
    monkeypatch.setattr("aiftrain.run.quota.PATIENCE", 0.2)
    program(tmp_path, "lfs", "exec sleep 60")
    assert quotas(tmp_path / "scratch", mounts) == []
