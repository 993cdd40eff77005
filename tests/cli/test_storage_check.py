"""`storage check ADDRESS` on a real Ceph gateway, with a service and keys as a user would have them, and on folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.cli.main import main
from aiftrain.run.mounts import file_system
from tests.rigs.buckets import new_bucket, open_store
from tests.rigs.ceph import CephRig

_SERVICE = """\
# A rig.
defaults: [local, _self_]
name: rig
service:
  name: rig
  title: A rig
  endpoint: {endpoint}
  ca_file: {ca_file}
"""


@pytest.fixture
def own(ceph: CephRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An override with a folder that describes the rig; its keys are in the environment."""
    (tmp_path / "storage").mkdir()
    service = _SERVICE.format(endpoint=ceph.endpoint, ca_file=ceph.ca_file)
    (tmp_path / "storage" / "rig.yaml").write_text(service)
    monkeypatch.setenv("AIFTRAIN_S3_RIG_ACCESS_KEY_ID", ceph.users[0].access_key)
    monkeypatch.setenv("AIFTRAIN_S3_RIG_SECRET_ACCESS_KEY", ceph.users[0].secret_key)
    return f"hydra.searchpath=[{tmp_path}]"


def checked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, tuple[str, str]]]:
    code = main(["storage", "check", *words, "--json"])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["fit"] == (code == 0)
    return code, {check["name"]: (check["state"], check["found"]) for check in document["checks"]}


def test_a_bucket_that_locks(ceph: CephRig, own: str, capsys: pytest.CaptureFixture[str]) -> None:
    archive = new_bucket(ceph, "runs", ObjectLockEnabledForBucket=True)
    code, found = checked(capsys, archive.address, own)
    assert code == 0 and [name for name, (state, _) in found.items() if state != "ok"] == ["conditional writes"]
    assert found["conditional writes"][0] == "warn", "Ceph 16 heeds no condition where versions are kept"
    assert found["TLS"][1].startswith("localhost, whose certificate is good until 20")
    assert found["credentials"][1] == "AIFTRAIN_S3_RIG_ACCESS_KEY_ID"
    assert found["object lock"][1] == "holds" and found["versions"][1].startswith("what is replaced")
    assert "8 MiB came back as they were sent" in found["round trip"][1]
    versions = open_store(ceph, archive).client.once("list_object_versions")
    assert "Versions" not in versions and "DeleteMarkers" not in versions, "nothing is left"


def test_a_bucket_that_strangers_list_is_not_fit(ceph: CephRig, own: str, capsys: pytest.CaptureFixture[str]) -> None:
    archive = new_bucket(ceph, ACL="public-read")
    assert main(["storage", "check", archive.address, own]) == 1
    words = capsys.readouterr().out
    assert "its ACL gives anybody READ" in words and "not fit to hold checkpoints" in words
    assert "none are kept" in words and "of two writers of a new object one wins" in words
    assert not any(secret in words for user in ceph.users for secret in (user.secret_key, user.access_key))


def test_what_cannot_be_opened_is_one_message(own: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["storage", "check", "s3://rig/no-such-bucket", own]) == 2
    assert "localhost has no such bucket" in capsys.readouterr().err
    assert main(["storage", "check", "ftp://somewhere"]) == 2
    assert "an archive is a folder" in capsys.readouterr().err
    assert main(["storage", "check", f"{tmp_path}/none"]) == 1
    assert f"{tmp_path}/none" in capsys.readouterr().err


def test_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, found = checked(capsys, ".")
    assert found["round trip"][0] == "ok" and file_system(tmp_path)[0] in found["file system"][1]
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_gives_other_bytes_back_is_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FolderStore, "blocks", lambda *_: iter([b"other bytes"]))
    code, found = checked(capsys, str(tmp_path))
    assert code == 1 and found["round trip"] == ("fail", "what comes back is not what was sent")
    assert list(tmp_path.iterdir()) == []
