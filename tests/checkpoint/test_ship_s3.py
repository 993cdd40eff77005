"""Shipping to a real object store, plain and sealed, while shipper, gateway or room are taken away.

AIFTRAIN_KILLS is how many random moments there are, for a campaign.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.sealing.keys import Identities, new_identity
from aiftrain.checkpoint.ship import Destination, Shipper
from aiftrain.checkpoint.stores.base import AlreadyThereError
from aiftrain.run.storage import ArchiveSpec
from tests.checkpoint.conftest import LINEAGE
from tests.checkpoint.saver import save_on
from tests.checkpoint.shipping import Watched, carry
from tests.checkpoint.test_ship_kill import ended_by, forked
from tests.rigs.buckets import new_bucket, open_store
from tests.rigs.ceph import CephRig

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("AIFTRAIN_KILLS", "20")) // 2  # plain, and sealed
Opens = Callable[[], Archive]


@pytest.fixture
def bucket(rig: CephRig) -> ArchiveSpec:
    return new_bucket(rig, "prefix")


@pytest.fixture(params=["plain", "sealed"])
def opens(rig: CephRig, bucket: ArchiveSpec, tmp_path: Path, request: pytest.FixtureRequest) -> Opens:
    """Opens the archive anew, as each process does."""
    new_identity(tmp_path / "identity.txt")
    recipients = Identities.read(tmp_path / "identity.txt").public if request.param == "sealed" else []
    return lambda: Archive(open_store(rig, bucket, patience=60.0), LINEAGE, recipients)


def ship(catalog: Catalog, opens: Opens) -> Watched:
    watch = Watched()
    Shipper(catalog, [Destination("s3://rig", opens)], watch).round()
    return watch


def check_whole(archive: Archive, known: set[int]) -> None:
    """All that the archive calls complete is, and none that it had is gone; `known` are looked at already."""
    steps = set(archive.steps())
    assert known <= steps, "a checkpoint was lost"
    assert all(archive.verify(step) == [] for step in steps - known)
    known |= steps


def test_the_shipper_is_killed_at_random_moments(catalog: Catalog, opens: Opens) -> None:
    dice, window, killed, known = random.Random(0), 0.3, 0, set[int]()
    for _ in range(KILLS):
        save_on(catalog, range(1, 2), None)
        child = forked(partial(ship, catalog, opens))
        time.sleep(dice.uniform(0.0, window))
        os.kill(child, signal.SIGKILL)
        if ended_by(child) == signal.SIGKILL:
            killed, window = killed + 1, window * 1.1
        else:
            window *= 0.7
        check_whole(opens(), known)
    assert killed > KILLS / 4, "most children were at their end before they were killed"
    assert ship(catalog, opens).failures == []
    archive = opens()
    check_whole(archive, set())
    assert set(archive.steps()) >= set(catalog.steps())
    newest = archive.place(catalog.steps()[-1])
    assert archive.store.clear_unfinished(newest) == 0, "parts of killed uploads are left"


def test_the_gateway_is_killed_while_it_is_shipped_to(rig: CephRig, catalog: Catalog, opens: Opens) -> None:
    dice, known = random.Random(1), set[int]()

    def ship_all() -> None:
        os._exit(len(ship(catalog, opens).failures))

    for _ in range(3):
        save_on(catalog, range(1, 3), None)
        child = forked(ship_all)
        time.sleep(dice.uniform(0.1, 0.6))
        rig.kill_gateway()
        rig.start_gateway()
        assert os.waitpid(child, 0)[1] == 0, "it did not wait out a gateway that was away"
        check_whole(opens(), known)
    assert known >= set(catalog.steps())


def test_of_two_runs_at_once_one_wins_and_nothing_is_mixed(catalog: Catalog, opens: Opens) -> None:
    save_on(catalog, range(1, 4), None)
    entries = catalog.entries()

    def carry_as(number: int) -> None:
        for entry in entries:
            other = entry.manifest.model_copy(update={"attempt": number})
            try:
                carry(Checkpoint(entry.folder, other), opens())
            except AlreadyThereError:
                continue

    children = [forked(partial(carry_as, number)) for number in (1, 2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    known: set[int] = set()
    check_whole(opens(), known)
    assert known == {entry.step for entry in entries}


def test_a_full_quota_is_told_and_what_fits_later_arrives(rig: CephRig, catalog: Catalog, opens: Opens) -> None:
    save_on(catalog, range(1, 3), None)
    rig.set_quota(rig.users[0], mib=0)
    try:
        (failure,) = ship(catalog, opens).failures
    finally:
        rig.set_quota(rig.users[0], mib=None)
    assert not failure.lasting and "quota" in failure.message
    assert opens().steps() == []
    assert ship(catalog, opens).failures == []
    assert opens().steps() == catalog.steps()
