"""The lock on software: what a Python finds, and a rank's refusal of anything else, with every difference named."""

from __future__ import annotations

import json
import platform
import re
from importlib import metadata
from pathlib import Path

import pytest

from aiftrain.errors import UserError
from aiftrain.run.env_lock import EnvLock, LockedFile, Software, check_software, read_environment, read_lock
from aiftrain.run.folder import RunFolder
from aiftrain.run.rank import Rank
from aiftrain.run.software import code_digest, installed_packages, software, torch_build


def rank(number: int) -> Rank:
    return Rank(rank=number, world_size=4, local_rank=0, local_size=1, launcher="slurm")


def found() -> Software:
    return Software.model_validate(software())


def lock(folder: RunFolder, software: Software, **files: LockedFile) -> None:
    folder.write_json(folder.env_lock, EnvLock(time="now", software=software, files=files).model_dump(mode="json"))


def test_names_of_folders_tell_what_metadata_tells() -> None:
    told = {re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower(): each.version for each in metadata.distributions()}
    told.pop("aiftrain", None)
    assert installed_packages() == told


def test_of_a_package_that_is_twice_on_the_path_the_first_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, name in (("a", "Some.Thing-2.0.dist-info"), ("b", "some_thing-1.0-py3.11.egg-info")):
        (tmp_path / folder / name).mkdir(parents=True)
    monkeypatch.setattr("sys.path", [str(tmp_path / "nowhere"), str(tmp_path / "a"), str(tmp_path / "b")])
    assert installed_packages() == {"some-thing": "2.0"}
    monkeypatch.setattr("sys.path", [str(tmp_path / "b")])
    assert installed_packages() == {"some-thing": "1.0"}


def test_torch_tells_its_build_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text(
        "from typing import Optional\n__version__ = '2.10.0+rocm7.0'\ncuda: Optional[str] = None\nhip = '7.0.5'\n"
    )
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert torch_build() == {"version": "2.10.0+rocm7.0", "hip": "7.0.5"}
    monkeypatch.setattr("sys.path", [])
    assert torch_build() == {}


def test_the_digest_changes_with_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiftrain.run.software._PACKAGE", tmp_path)
    (tmp_path / "a.py").write_text("1")
    before = code_digest()
    (tmp_path / "a.pyc").write_text("no code")
    assert code_digest() == before
    (tmp_path / "a.py").write_text("2")
    assert code_digest() != before


def check(folder: RunFolder, number: int) -> None:
    """As rank `number` of two nodes does, with the lock that rank 0 reads."""
    check_software(folder, read_lock(folder), 1, rank(number))


def test_without_a_lock_nothing_is_refused_and_rank_0_says_what_it_runs_with(run_folder: RunFolder) -> None:
    check(run_folder, 1)
    assert not run_folder.environment(1).exists()
    check(run_folder, 0)
    assert read_environment(run_folder) == found()
    assert found().python == platform.python_version() and found().packages["numpy"]


def test_what_is_locked_runs(run_folder: RunFolder) -> None:
    lock(run_folder, found())
    for number in (0, 1):
        check(run_folder, number)


def test_every_difference_is_named(run_folder: RunFolder) -> None:
    now = found()
    packages = now.packages | {"numpy": "1.0", "gone": "3"}
    del packages["pyyaml"]
    build = now.torch | {"cuda": "12.9"}
    lock(run_folder, now.model_copy(update={"python": "3.11.0", "packages": packages, "torch": build}))
    with pytest.raises(UserError) as refusal:
        check(run_folder, 1)
    for line in (
        f"python: locked 3.11.0, here {now.python}",
        f"numpy: locked 1.0, here {now.packages['numpy']}",
        "gone: locked 3, here none",
        f"pyyaml: locked none, here {now.packages['pyyaml']}",
        "torch's cuda: locked 12.9, here none",
        f"accept what is here: python -m aiftrain env lock {run_folder.path}",
    ):
        assert line in str(refusal.value)


def test_changed_code_and_files_are_found_by_rank_0_alone(run_folder: RunFolder, tmp_path: Path) -> None:
    image = tmp_path / "image.sif"
    image.write_text("image")
    status = image.stat()
    same = LockedFile(path=str(image), bytes=status.st_size, modified=status.st_mtime, sha256="")
    unseen = same.model_copy(update={"path": "/not/to/be/seen/here"})
    lock(run_folder, found(), image=same, other=unseen)
    check(run_folder, 0)
    lock(run_folder, found().model_copy(update={"code": "other"}), image=same.model_copy(update={"bytes": 4}))
    check(run_folder, 1)
    with pytest.raises(UserError) as refusal:
        check(run_folder, 0)
    assert "its code has changed" in str(refusal.value)
    assert f"image: {image} is no longer the file that was locked" in str(refusal.value)


def test_many_differences_are_counted(run_folder: RunFolder) -> None:
    lock(run_folder, found().model_copy(update={"packages": {}}))
    with pytest.raises(UserError, match=f"and {len(found().packages) - 12} more"):
        check(run_folder, 0)


def test_a_lock_that_is_none_is_said(run_folder: RunFolder) -> None:
    assert read_lock(run_folder) is None
    run_folder.write(run_folder.env_lock, json.dumps({"format": 1}))
    with pytest.raises(UserError, match="cannot be read as a lock"):
        read_lock(run_folder)
    with pytest.raises(UserError, match="has said yet what it runs with"):
        read_environment(run_folder)
