"""A real object store as `checkpoints` is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.rigs.buckets import service_of
from tests.rigs.ceph import CephRig


@pytest.fixture
def conf(ceph: CephRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that describes the rig as a service, and its keys in the environment."""
    folder = tmp_path / "conf" / "storage"
    folder.mkdir(parents=True)
    service = service_of(ceph).model_dump(mode="json")
    (folder / "rig.yaml").write_text(yaml.safe_dump({"name": "rig", "service": service}))
    monkeypatch.setenv("AIFTRAIN_S3_RIG_ACCESS_KEY_ID", ceph.users[0].access_key)
    monkeypatch.setenv("AIFTRAIN_S3_RIG_SECRET_ACCESS_KEY", ceph.users[0].secret_key)
    return tmp_path / "conf"
