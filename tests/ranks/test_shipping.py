"""The shipper beside the ranks: what is saved is in the archive by the run's end, and no failure of it is the run's."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import Nursery, Ranks, events

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]
SAVING = ("storage.save_every=5", "train.evaluate_batches=0", "storage.keep_last=1")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    return tmp_path / "archive"


@pytest.fixture
def run(new_run: NewRun, place: Path) -> RunFolder:
    return new_run(*SAVING, f"storage.archives=[{place}]", ranks=1)


@pytest.fixture
def impatient_run(new_run: NewRun, place: Path) -> RunFolder:
    return new_run(*SAVING, f"storage.archives=[{place}]", "storage.ship_minutes=0", ranks=1)


def arrived(run: RunFolder, place: Path) -> list[int]:
    return Archive(FolderStore(place), run.read_spec().lineage).steps()


def ended(ranks: Ranks) -> None:
    assert ranks.wait() == [0], ranks.log()


def test_all_that_is_saved_is_there_at_the_end(nursery: Nursery, run: RunFolder, place: Path) -> None:
    ended(nursery.start(run, 1))
    assert arrived(run, place) == [5, 10, 15, 20], "retention removed what nobody had yet"
    assert not events(run, "unshipped") and not events(run, "shipper ended")


def test_a_shipper_that_dies_is_started_again(nursery: Nursery, run: RunFolder, place: Path) -> None:
    ranks = nursery.start(run, 1)
    ranks.until(lambda: bool(ranks.shippers()))
    os.kill(ranks.shippers()[0], signal.SIGKILL)
    ended(ranks)
    assert events(run, "shipper ended")[0]["exit_code"] == -signal.SIGKILL
    assert arrived(run, place) == [5, 10, 15, 20]


@pytest.mark.slow
def test_a_shipper_that_hangs_is_killed_and_not_started_again(nursery: Nursery, impatient_run: RunFolder) -> None:
    ranks = nursery.start(impatient_run, 1)
    ranks.until(lambda: bool(ranks.shippers()))
    os.kill(ranks.shippers()[0], signal.SIGSTOP)
    ended(ranks)
    assert len(events(impatient_run, "shipper ended")) == 1
    assert len(events(impatient_run, "unshipped")) == 1


def test_an_archive_out_of_reach_is_told_and_ends_nothing(
    nursery: Nursery, impatient_run: RunFolder, place: Path
) -> None:
    run = impatient_run
    ranks = nursery.start(run, 1)
    ranks.until(run.metrics.exists)
    place.rename(place.with_name("gone"))
    ended(ranks)
    (told,) = events(run, "unshipped")
    assert told["steps"] and "python -m aiftrain ship" in told["message"]
