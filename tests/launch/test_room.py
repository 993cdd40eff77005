"""Room for checkpoints: more than the disk has is refused, with what would fit; those that lie there count."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiftrain.launch.room import room_problems
from aiftrain.run.folder import RunFolder
from aiftrain.run.quota import Room
from aiftrain.run.spec import RunSpec
from tests.conftest import small_execution, small_spec

LAYOUT = small_execution().layout  # two ranks: with the manifest and their folder four names a checkpoint


def spec(keep_last: int, steps: int = 10**9) -> RunSpec:
    train = {"steps": steps, "sequence_length": 32, "global_batch": 4}
    return small_spec(train=train, storage={"name": "local", "save_every": 10, "keep_last": keep_last})


def told(spec: RunSpec, folder: RunFolder) -> list[str]:
    return [str(problem) for problem in room_problems(spec, LAYOUT, folder)]


def test_what_fits_is_no_problem(run_folder: RunFolder) -> None:
    assert told(spec(keep_last=2), run_folder) == []


def test_more_bytes_than_any_disk_has_are_refused(run_folder: RunFolder) -> None:
    [problem, *_] = told(spec(keep_last=10**8 - 2), run_folder)
    assert problem.startswith("storage.keep_last: its file system leaves")
    fits = int(problem.rpartition("storage.keep_last=")[2].split(",")[0])
    assert 0 < fits < 10**8
    fits -= fits // 4  # others use this disk, too
    assert told(spec(keep_last=fits), run_folder) == told(spec(keep_last=10**8, steps=50), run_folder) == []


@pytest.fixture
def quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota of 20 more files."""
    monkeypatch.setattr("aiftrain.run.room.quotas", lambda _: [Room(None, 20, "the quota of usr ann")])


@pytest.mark.usefixtures("quota")
def test_a_quota_for_files_counts_and_so_do_checkpoints_that_are_there(run_folder: RunFolder) -> None:
    [problem] = told(spec(keep_last=2), run_folder)
    assert "the quota of usr ann leaves 20 files" in problem and "3 checkpoints more take 21" in problem
    assert "storage.keep_last=1," in problem
    (run_folder.checkpoints / "step-00000010").mkdir(parents=True)
    assert told(spec(keep_last=2), run_folder) == []


@pytest.mark.usefixtures("quota")
def test_where_not_even_one_fits_fewer_are_no_advice(run_folder: RunFolder, tmp_path: Path) -> None:
    large = LAYOUT.model_copy(update={"world_size": 64})
    [problem] = room_problems(spec(keep_last=1), large, run_folder)
    assert problem.fits.startswith("make room there, or storage.path=")
