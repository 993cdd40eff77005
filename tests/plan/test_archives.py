"""Archives as a person writes them, and the services that the resolved spec holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiftrain.errors import ConfigError
from aiftrain.plan.spec import resolve
from aiftrain.run.spec import RunSpec
from aiftrain.run.storage import StorageSpec

SMOKE = ("recipe=smoke", "factory=local")


def storage(*overrides: str) -> StorageSpec:
    return resolve([*SMOKE, *overrides]).storage


def problem(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        storage(*overrides)
    return str(error.value)


def test_a_bucket_of_the_chosen_service_is_the_first_archive() -> None:
    found = storage("storage=lumi-o", "storage.bucket=mine/runs", "storage.archives=[/copies]")
    first, second = found.archives
    assert (first.address, first.bucket, first.prefix) == ("s3://lumi-o/mine/runs", "mine", "runs")
    assert first.service and first.service.endpoint == "https://lumidata.eu"
    assert second.is_folder and second.service is None
    assert found.service is None and found.bucket is None


def test_the_resolved_spec_needs_no_configuration() -> None:
    spec = resolve([*SMOKE, "storage.archives=[s3://ovhcloud.de/bucket]"])
    again = RunSpec.model_validate_json(spec.model_dump_json())
    service = again.storage.archives[0].service
    assert service and (service.host, service.location, service.region) == ("s3.de.io.cloud.ovh.net", "DE", "de")
    assert service.provenance["endpoint"].source


def test_where_checkpoints_go_is_no_part_of_what_a_run_is() -> None:
    there = resolve([*SMOKE, "storage=scaleway", "storage.bucket=bucket", "storage.ship=later"])
    assert there.digest == resolve(list(SMOKE)).digest


def test_what_is_known_better_than_the_shipped_file_is_said_on_the_command_line() -> None:
    found = storage("storage=allas", "storage.bucket=bucket", "storage.service.endpoint=https://new.a3s.fi")
    assert found.archives[0].service and found.archives[0].service.host == "new.a3s.fi"


def test_a_folder_of_ones_own_brings_services(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    text = "# Our store, in the cellar.\nname: ours\nservice: {name: ours, title: Ours, endpoint: 'https://s3.example.eu'}\n"
    (tmp_path / "storage" / "ours.yaml").write_text(text)
    mine = f"hydra.searchpath=[{tmp_path}]"
    assert storage("storage.archives=[s3://ours/bucket]", mine).archives[0].bucket == "bucket"
    (tmp_path / "storage" / "ours.yaml").write_text(text.replace("https", "http"))
    told = problem("storage.archives=[s3://ours/bucket]", mine)
    assert "ours.yaml: service.endpoint" in told and "encrypted" in told


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("storage.archives=[s3://lumio/bucket]",), "there is no storage service 'lumio'\n      did you mean lumi-o?"),
        (("storage.archives=[s3://local/bucket]",), "there is no storage service 'local'"),
        (("storage.archives=[s3://ovhcloud.bhs/bucket]",), "ovhcloud has no region 'bhs'\n      there are: gra, rbx"),
        (("storage.archives=s3://lumi-o/bucket",), "must be a list"),
        (("storage.archives=[here]",), "an archive is a folder"),
        (("storage.archives=[/copies,/copies/]",), "/copies is named twice"),
        (("storage.path=/home", "storage.archives=[/home]"), "/home is named twice"),
        (("storage=lumi-o",), "storage.bucket: has no value"),
        (("storage.bucket=mine",), "storage=local has no buckets\n      storage=NAME, one of: allas"),
        (("storage=lumi-o", "storage.bucket=Upper"), "an archive is a folder"),
        (("storage=lumio",), "did you mean lumi-o?"),
    ],
)
def test_a_mistake_is_told_with_what_would_fit(overrides: tuple[str, ...], told: str) -> None:
    assert told in problem(*overrides)
