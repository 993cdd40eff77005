"""A run ships to a real object store while it trains, sealed, under policy=eu-sealed, and goes on from there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aiftrain.checkpoint.sealing.keys import IDENTITY_FILE
from aiftrain.run.folder import RunFolder
from tests.ranks.comparing import states
from tests.ranks.conftest import Nursery, events
from tests.ranks.sealed_runs import SealedBucket
from tests.rigs.ceph import CephRig

pytestmark = [pytest.mark.ranks, pytest.mark.slow]


def test_it_goes_on_where_an_identity_is_and_says_what_is_missing_where_none_is(
    nursery: Nursery, new_run: Callable[..., RunFolder], ceph: CephRig, tmp_path: Path
) -> None:
    bucket = SealedBucket.new(ceph, tmp_path)
    run = new_run("storage.save_every=10", "train.evaluate_batches=0", *bucket.overrides())
    ranks = nursery.start(run, 2, **bucket.keys)
    assert ranks.wait() == [0, 0], ranks.log()
    assert not events(run, "unshipped") and not events(run, "shipper ended"), ranks.log()
    before = states(run)
    shutil.rmtree(run.checkpoints)

    ranks = nursery.start(run, 2, **bucket.keys)
    assert ranks.wait() == [2, 2], ranks.log()
    assert bucket.identities.public[0] in ranks.message() and IDENTITY_FILE in ranks.message()

    ranks = nursery.start(run, 2, **bucket.opening)
    assert ranks.wait() == [0, 0], ranks.log()
    assert [event["step"] for event in events(run, "fetched")] == [20]
    after = states(run)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert list(bucket.told(run)) == []
