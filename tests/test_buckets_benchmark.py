"""The benchmark of buckets runs in all its ways, at a size at which its figures say nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rigs.ceph import CephRig


def test_every_way_there_and_back_has_its_figures(
    ceph: CephRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("botocore")
    from benchmarks.buckets import Botocore, measure, table

    for name, value in ceph.variables.items():
        monkeypatch.setenv(name, value)
    result = measure(tmp_path, size=2 << 20, files=2, rounds=1)
    for way in ("plain", "sealed", "botocore", "botocore, unsigned"):
        assert all(value > 0 for value in result["ways"][way].values()), way
    assert "of botocore" in table(result)
    left = [bucket["Name"] for bucket in Botocore().client.list_buckets()["Buckets"]]
    assert not [name for name in left if name.startswith("benchmark-")]
