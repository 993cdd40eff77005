"""Checkpoints against quotas, file counts, purges and storage billing."""

from __future__ import annotations

from typing import Any

import pytest

from aiftrain.plan.spec import resolve
from aiftrain.plan.storage import StorageUse, destination_of, storage, write_rate
from aiftrain.run.spec import RunSpec
from tests.plan.costing import FACTORY, lasting, layout, run

GB = 10**9


def stored(spec: RunSpec, checkpoint_bytes: int = 100 * GB, days: float = 10, nodes: int = 1) -> StorageUse:
    return storage(spec, layout(nodes), lasting(spec, days=days), checkpoint_bytes)


def areas(**scratch: Any) -> dict[str, Any]:
    return FACTORY | {"storage_areas": {"scratch": {"path": "/scratch/<account>"} | scratch}}


def test_bytes_and_files_by_hand() -> None:
    """Two checkpoints are kept and one is being written; each is a file of four ranks and four more."""
    use = stored(run())
    assert (use.kept, use.kept_bytes, use.files) == (3, 300 * GB, 24)
    assert use.areas[0].fits is True


@pytest.mark.parametrize(
    ("limits", "octets", "files", "both"),
    [
        ({"quota_gb": 300, "max_files": 24}, True, True, True),
        ({"quota_gb": 299, "max_files": 24}, False, True, False),
        ({"quota_gb": 300, "max_files": 23}, True, False, False),
        ({"quota_gb": 300}, True, None, None),
        ({"max_files": 23}, None, False, False),
        ({}, None, None, None),
    ],
)
def test_a_limit_nobody_knows_neither_fits_nor_fails(
    limits: dict[str, int], octets: bool | None, files: bool | None, both: bool | None
) -> None:
    (area,) = stored(run(factory=areas(**limits))).areas
    assert (area.fits_bytes, area.fits_files, area.fits) == (octets, files, both)


def test_storage_is_billed_by_terabytes_and_hours() -> None:
    """0.3 TB for ten days at three units a TB and hour."""
    (area,) = stored(run(factory=areas(billing_factor=3))).areas
    assert area.billed == pytest.approx(0.3 * 240 * 3)
    assert stored(run()).areas[0].billed is None


def test_a_run_longer_than_the_purge_is_a_warning() -> None:
    assert not stored(run(), days=30).warnings
    (warning,) = stored(run(), days=31).warnings
    assert "scratch may delete files after 30 days, and the run takes 31" in warning


def test_an_area_wiped_after_each_job_is_no_place_that_anybody_means() -> None:
    local = FACTORY["storage_areas"] | {"local": {"path": "/local", "purge_days": 0}}
    assert not stored(run(factory=FACTORY | {"storage_areas": local})).warnings
    saved_there = {"name": "local", "save_every": 100, "path": "/local/run"}
    (warning,) = stored(run(factory=FACTORY | {"storage_areas": local}, storage=saved_there)).warnings
    assert warning.startswith("local may delete files after 0 days")


def test_more_than_every_quota_is_a_warning() -> None:
    warnings = stored(run(), checkpoint_bytes=1000 * GB).warnings
    assert warnings == (
        "no storage area takes the checkpoints at its default quota: ask the site for more before the run",
    )


def test_the_destination_is_the_area_that_the_path_begins_with() -> None:
    def destination(path: str | None) -> str | None:
        return destination_of(resolve(["recipe=eu-llm-1b", "factory=lumi", f"storage.path={path or 'null'}"]))

    assert destination("/scratch/project_1/run") == "scratch"
    assert destination("/flash/project_1") == "flash"
    assert destination("/mnt/elsewhere") is None
    assert destination(None) is None


def test_the_write_rate_is_the_users_or_the_areas() -> None:
    lumi = ["recipe=eu-llm-1b", "factory=lumi"]
    assert write_rate(resolve(lumi)) == pytest.approx(32 * 0.161, abs=0.1)
    assert write_rate(resolve([*lumi, "storage.path=/flash/project_1"])) == pytest.approx(58 * 1.71, abs=0.2)
    assert write_rate(resolve([*lumi, "plan.write_gb_per_s=7"])) == 7
    assert write_rate(resolve(["recipe=smoke"])) is None
