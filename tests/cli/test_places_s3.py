"""`checkpoints` at a bucket, on a real Ceph gateway: copied there, listed, verified, exported by ranges, pruned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiftrain.checkpoint.sealing.keys import IDENTITY_FILE, new_identity
from aiftrain.cli.main import main
from tests.cli.places import SavedRun, asked
from tests.rigs.buckets import new_bucket
from tests.rigs.ceph import CephRig

Capture = pytest.CaptureFixture[str]
EUROPE = {"name": "rig", "checkpoints": {"locations": ["FI"], "unknown": ["operator_seat", "owner_seat"]}}


@pytest.fixture
def run(tmp_path: Path) -> SavedRun:
    storage = {"name": "local", "seal": {"where": "archives", "recipients": [new_identity(tmp_path / "identity")]}}
    run = SavedRun(tmp_path / "run", storage=storage, policy=EUROPE)
    run.save(10, 20)
    return run


def test_a_sealed_checkpoint_from_a_bucket(
    ceph: CephRig, conf: Path, run: SavedRun, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, mine = new_bucket(ceph, "team").address, ("--conf", str(conf))
    assert main(["checkpoints", "copy", run.path, bucket, "--all", *mine]) == 0
    capsys.readouterr()
    (found,) = asked(capsys, "list", bucket, *mine)["runs"]
    assert [(each["step"], each["message"]) for each in found["checkpoints"]] == [
        (10, "complete, sealed"),
        (20, "complete, sealed"),
    ]
    assert asked(capsys, "verify", bucket, *mine)["intact"] is True
    monkeypatch.setenv(IDENTITY_FILE, str(tmp_path / "identity"))
    assert main(["checkpoints", "export", bucket, "--out", str(tmp_path / "model"), *mine]) == 0
    assert main(["checkpoints", "export", run.path, "--out", str(tmp_path / "reference")]) == 0
    for file in (tmp_path / "reference").iterdir():
        assert (tmp_path / "model" / file.name).read_bytes() == file.read_bytes(), file.name
    assert main(["checkpoints", "keep", bucket, "--step", "10", *mine]) == 0
    assert main(["checkpoints", "prune", bucket, "--keep-last", "1", "--yes", *mine]) == 0
    capsys.readouterr()
    document: Any = asked(capsys, "list", bucket, *mine)
    assert [each["step"] for each in document["runs"][0]["checkpoints"]] == [10, 20]
    assert main(["checkpoints", "keep", bucket, "--step", "10", "--drop", *mine]) == 0
    assert main(["checkpoints", "prune", bucket, "--keep-last", "1", "--yes", *mine]) == 0
    capsys.readouterr()
    document = asked(capsys, "list", bucket, *mine)
    assert [each["step"] for each in document["runs"][0]["checkpoints"]] == [20]


def test_an_old_manifest_in_a_bucket_is_seen_without_a_key(
    ceph: CephRig, conf: Path, run: SavedRun, capsys: Capture
) -> None:
    bucket, mine = new_bucket(ceph, "team").address, ("--conf", str(conf))
    assert main(["checkpoints", "copy", run.path, bucket, *mine]) == 0
    run.home.set_aside(20, "void")
    run.save(20, 30)
    assert main(["checkpoints", "copy", run.path, bucket, *mine]) == 0, "the newest, and custody"
    capsys.readouterr()
    (old, new) = asked(capsys, "verify", bucket, *mine, code=1)["runs"][0]["checkpoints"]
    assert "custody.jsonl has the manifest" in old["faults"][0]["what"] and not new["faults"]


def test_what_is_not_sealed_does_not_get_there(ceph: CephRig, conf: Path, tmp_path: Path, capsys: Capture) -> None:
    run = SavedRun(tmp_path / "open", policy=EUROPE)
    run.save(10)
    bucket = new_bucket(ceph).address
    assert main(["checkpoints", "copy", run.path, bucket, "--conf", str(conf)]) == 2
    assert "policy.checkpoints.seal" in capsys.readouterr().err
    assert main(["checkpoints", "list", bucket, "--conf", str(conf)]) == 2
