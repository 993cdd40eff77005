"""kill -9 of the shipper at any moment: no archive has a checkpoint that is not whole, and the next shipper goes on.

AIFTRAIN_KILLS is how many random moments there are, for a campaign.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.stores.base import AlreadyThereError
from tests.checkpoint.saver import die_before, save_on
from tests.checkpoint.shipping import Watched, at, carry, shipper

KILLS = int(os.environ.get("AIFTRAIN_KILLS", "25"))
Save = Callable[[Catalog, int], Checkpoint]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    return tmp_path / "archive"


def forked(work: Callable[[], object]) -> int:
    """The process id of a child that does it."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return child


def ended_by(child: int) -> int:
    """The signal that ended it, 0 where it came to its end."""
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def check_whole(place: Path) -> int:
    """All that the archive calls complete is; how many that are."""
    steps = at(place).steps()
    assert all(at(place).verify(step) == [] for step in steps)
    return len(steps)


def parts(place: Path) -> list[Path]:
    """Parts of shards that writers left beside complete checkpoints; empty ones go after a day."""
    found = [part for step in at(place).steps() for part in (place / at(place).place(step)).glob(".rank-*")]
    return [part for part in found if part.stat().st_size]


def test_killed_before_every_file_operation(catalog: Catalog, place: Path) -> None:
    save_on(catalog, range(1, 3), None)

    def ship(operation: int) -> None:
        die_before(operation)
        shipper(catalog, [place], Watched()).round()

    arrived = 0
    for operation in count(1):
        signaled = ended_by(forked(lambda: ship(operation)))  # noqa: B023  # the child is gone before the next turn
        reached = check_whole(place)
        assert reached >= arrived, "a checkpoint was lost"
        arrived = reached
        if signaled == 0:
            break
    assert operation > 5, "the child came to its end too early for this test to mean anything"
    assert at(place).steps() == catalog.steps()
    assert parts(place) == []


@pytest.mark.slow
def test_killed_at_random_moments(catalog: Catalog, place: Path) -> None:
    dice, window, killed = random.Random(0), 0.1, 0
    for _ in range(KILLS):
        save_on(catalog, range(1, 2), None)
        child = forked(lambda: shipper(catalog, [place], Watched()).round())
        time.sleep(dice.uniform(0.0, window))
        os.kill(child, signal.SIGKILL)
        if ended_by(child) == signal.SIGKILL:
            killed, window = killed + 1, window * 1.1
        else:  # it was done before: how long a round takes is not the same everywhere
            window *= 0.7
        check_whole(place)
    assert killed > KILLS / 4, "most children were at their end before they were killed"
    assert shipper(catalog, [place], Watched()).round() == []
    assert set(at(place).steps()) >= set(catalog.steps())
    assert parts(place) == []


def test_of_two_shippers_at_once_one_wins_and_the_other_sees_it_is_the_same(
    catalog: Catalog, save: Save, place: Path
) -> None:
    entries = [save(catalog, step) for step in range(1, 6)]

    def carry_all() -> None:
        for entry in entries:
            carry(entry, at(place))

    children = [forked(carry_all) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert check_whole(place) == 5
    assert parts(place) == []


def test_of_two_runs_at_once_one_wins_and_nothing_is_mixed(catalog: Catalog, save: Save, place: Path) -> None:
    entries = [save(catalog, step) for step in range(1, 6)]

    def carry_as(number: int) -> None:
        for entry in entries:
            other = entry.manifest.model_copy(update={"attempt": number})
            try:
                carry(Checkpoint(entry.folder, other), at(place))
            except AlreadyThereError:
                continue

    children = [forked(lambda number=number: carry_as(number)) for number in (1, 2, 3)]  # type: ignore[misc]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert check_whole(place) == 5
