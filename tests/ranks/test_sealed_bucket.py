"""A run ships to a real object store while it trains, sealed, under policy=eu-sealed, and goes on from there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aiftrain.checkpoint.sealing.keys import IDENTITY_FILE, Identities, new_identity
from aiftrain.run.folder import RunFolder
from tests.ranks.comparing import states
from tests.ranks.conftest import Nursery, events
from tests.rigs.buckets import new_bucket
from tests.rigs.ceph import CephRig

pytestmark = [pytest.mark.ranks, pytest.mark.slow]
NewRun = Callable[..., RunFolder]


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    file = tmp_path / "identity.txt"
    new_identity(file)
    return file


@pytest.fixture
def run(new_run: NewRun, ceph: CephRig, identity: Path) -> RunFolder:
    seats = "location: FI, operator: Us, operator_seat: FI, owner_seat: FI"
    facts = f"name: rig, title: A rig, {seats}, ca_file: {ceph.ca_file}"
    archive = f"{{address: '{new_bucket(ceph, 'runs').address}', service: {{{facts}, endpoint: '{ceph.endpoint}'}}}}"
    return new_run(
        "storage.save_every=10",
        "train.evaluate_batches=0",
        "policy=eu-sealed",
        f"storage.archives=[{archive}]",
        "storage.seal.where=archives",
        f"storage.seal.recipients={Identities.read(identity).public}",
    )


@pytest.fixture
def keys(ceph: CephRig) -> dict[str, str]:
    user = ceph.users[0]
    names = ("AIFTRAIN_S3_RIG_ACCESS_KEY_ID", "AIFTRAIN_S3_RIG_SECRET_ACCESS_KEY")
    return dict(zip(names, (user.access_key, user.secret_key), strict=True))


def test_it_goes_on_where_an_identity_is_and_says_what_is_missing_where_none_is(
    nursery: Nursery, run: RunFolder, keys: dict[str, str], identity: Path
) -> None:
    ranks = nursery.start(run, 2, **keys)
    assert ranks.wait() == [0, 0], ranks.log()
    assert not events(run, "unshipped") and not events(run, "shipper ended"), ranks.log()
    before = states(run)
    shutil.rmtree(run.checkpoints)

    ranks = nursery.start(run, 2, **keys)
    assert ranks.wait() == [2, 2], ranks.log()
    assert Identities.read(identity).public[0] in ranks.message() and IDENTITY_FILE in ranks.message()

    ranks = nursery.start(run, 2, **keys, **{IDENTITY_FILE: str(identity)})
    assert ranks.wait() == [0, 0], ranks.log()
    assert [event["step"] for event in events(run, "fetched")] == [20]
    after = states(run)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    secrets = [keys["AIFTRAIN_S3_RIG_SECRET_ACCESS_KEY"], identity.read_text().splitlines()[-1]]
    told = [file for ending in ("json", "jsonl", "log") for file in run.path.rglob(f"*.{ending}")]
    assert told and not any(secret in file.read_text() for secret in secrets for file in told)
