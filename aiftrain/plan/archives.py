"""The archives of a run: each address with what conf/storage knows of its service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from aiftrain.errors import ConfigError, Problem, UserError
from aiftrain.plan.groups import Groups, did_you_mean
from aiftrain.run.storage import ArchiveSpec, ServiceSpec, split_address

GROUP = "storage"
_WHERE = "storage.archives"


def with_services(storage: Mapping[str, Any], groups: Groups) -> dict[str, Any]:
    """A composed `storage` whose archives have their services, that of its own bucket first.

    ConfigError for a service or a region that does not exist, and for one without a bucket.
    """
    own, archives = _own(storage, groups), storage.get("archives") or []
    if not isinstance(archives, list):
        return dict(storage)  # pydantic says what is wrong with it
    described = [_described(archive, groups) for archive in archives]
    return dict(storage) | {"archives": [*own, *described], "bucket": None, "service": None}


def archive_at(address: str, groups: Groups) -> ArchiveSpec:
    """The archive that a person names. UserError for an address that can be none, or a service that does not exist."""
    try:
        return ArchiveSpec.model_validate(_described({"address": address}, groups))
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise UserError(reason.removeprefix("Value error, ")) from error


def services(groups: Groups) -> list[str]:
    """The choices of storage that are services."""
    return [name for name in groups.choices(GROUP) if groups.read(GROUP, name).get("service")]


def _own(storage: Mapping[str, Any], groups: Groups) -> list[dict[str, Any]]:
    """The archive in the bucket of the chosen service; none where a folder was chosen."""
    service, bucket = storage.get("service"), storage.get("bucket")
    if not service and not bucket:
        return []
    if not service:
        fits = f"storage=NAME, one of: {', '.join(services(groups))}; or storage.archives=[s3://NAME/{bucket}]"
        raise ConfigError([Problem("storage.bucket", f"storage={storage.get('name')} has no buckets", fits)])
    if not bucket:
        raise ConfigError([Problem("storage.bucket", "has no value", "storage.bucket=BUCKET, or BUCKET/PREFIX")])
    return [{"address": f"s3://{storage['name']}/{bucket}", "service": service | {"regions": {}}}]


def _described(archive: Any, groups: Groups) -> Any:
    """An archive with its service, where it is an address of one that is not described by hand."""
    address = archive if isinstance(archive, str) else None
    if isinstance(archive, dict) and not archive.get("service"):
        address = archive.get("address")
    parts = split_address(address) if isinstance(address, str) else None
    if parts is None:
        return archive
    return {"address": address, "service": _service(*parts, groups).model_dump(mode="json")}


def _service(name: str, region: str | None, groups: Groups) -> ServiceSpec:
    known = services(groups)
    if name not in known:
        fits = f"{did_you_mean(name, known)}there are: {', '.join(known)}"
        raise ConfigError([Problem(_WHERE, f"there is no storage service '{name}'", fits)])
    service = _read(name, groups)
    if region is None:
        return service.model_copy(update={"regions": {}})
    if region != service.region and region not in service.regions:
        there = ", ".join([service.region or "", *service.regions]).strip(", ") or "none that are named"
        raise ConfigError([Problem(_WHERE, f"{name} has no region '{region}'", f"there are: {there}")])
    return service.at(region)


def _read(name: str, groups: Groups) -> ServiceSpec:
    try:
        return ServiceSpec.model_validate(groups.read(GROUP, name)["service"])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, ("service", *first["loc"])))
        raise ConfigError([Problem(f"{groups.file(GROUP, name)}: {key}", first["msg"])]) from error
