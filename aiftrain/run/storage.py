"""Where checkpoints go: home, where ranks write them, and the archives that complete ones are carried to.

An archive is a folder or a bucket of a storage service. What is known of a service stands in conf/storage/, and is
embedded in the resolved spec: who reads a run folder needs no configuration to know the place and its jurisdiction.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from aiftrain.run.base import Provenance, Strict
from aiftrain.run.seal import SealSpec

_S3_ADDRESS = re.compile(
    r"s3://(?P<service>[a-z0-9][a-z0-9-]*)(\.(?P<region>[a-z0-9-]+))?"
    r"/(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/(?P<prefix>[\w.-]+(/[\w.-]+)*))?/?",
    re.ASCII,
)
_HAS_DOTS = re.compile(r"(^|/)\.{1,2}(/|$)")
_COUNTRY = re.compile("[A-Z]{2}")


class ServiceLimits(Strict):
    """What a service takes. None: nobody documents it, and the limits of S3 itself are kept to.

    `conditional_write`: it refuses to overwrite where it is asked to (If-None-Match). `object_lock`: offered, or
    without effect though its calls succeed.
    """

    max_parts: int | None = Field(None, ge=1)  # of one object
    max_part_gib: float | None = Field(None, gt=0)
    max_object_gib: float | None = Field(None, gt=0)
    max_objects: int | None = Field(None, ge=1)  # of one bucket
    max_buckets: int | None = Field(None, ge=1)  # of one project
    quota_gb: float | None = Field(None, gt=0)  # 10^9 bytes of one project, before it asks for more
    conditional_write: bool | None = None
    object_lock: Literal["offered", "no-effect"] | None = None


class Region(Strict):
    """One of the places that a service runs at."""

    endpoint: str
    location: str | None = None  # the country that the data lies in, ISO 3166-1, two letters
    certifications: tuple[str, ...] = ()  # those of the service's first region do not count here


class ServiceSpec(Strict):
    """One storage service: where it is, whose it is, and what it takes. Countries are ISO 3166-1, two letters."""

    name: str
    title: str
    endpoint: str  # https://host[:port]
    region: str | None = None  # as requests to the endpoint name it; None: any name will do
    location: str | None = None  # the country that the data lies in
    operator: str | None = None
    operator_seat: str | None = None  # the country whose law the operator is under
    owner: str | None = None  # who in the end controls the operator
    owner_seat: str | None = None
    keys_held_by: str | None = None  # who could read what lies there unsealed
    certifications: tuple[str, ...] = ()
    ca_file: str | None = None  # the certificates to trust, where the endpoint's own is signed by none of the system's
    regions: dict[str, Region] = {}  # by name: the other places, s3://SERVICE.REGION/BUCKET
    limits: ServiceLimits = ServiceLimits()
    provenance: dict[str, Provenance] = {}

    @property
    def host(self) -> str:
        """The endpoint's host, in lower case, without its port; an IPv6 address without brackets."""
        return urlsplit(self.endpoint).hostname or ""

    def at(self, region: str) -> ServiceSpec:
        """The service in one of its regions. KeyError where it has no such region."""
        if region == self.region:
            return self.model_copy(update={"regions": {}})
        return self.model_copy(update={"region": region, "regions": {}, **dict(self.regions[region])})

    @field_validator("endpoint")
    @classmethod
    def _is_encrypted(cls, endpoint: str) -> str:
        return _checked_endpoint(endpoint)

    @field_validator("regions")
    @classmethod
    def _are_encrypted(cls, regions: dict[str, Region]) -> dict[str, Region]:
        for region in regions.values():
            _checked_endpoint(region.endpoint)
        return regions

    @field_validator("location", "operator_seat", "owner_seat")
    @classmethod
    def _is_country(cls, country: str | None) -> str | None:
        if country is not None and not _COUNTRY.fullmatch(country):
            raise ValueError(f"{country!r} is no country: two letters of ISO 3166-1, such as FI")
        return country


def _checked_endpoint(endpoint: str) -> str:
    """ValueError, which repeats no secret, for an endpoint that is not https://host[:port]."""
    if not re.fullmatch(r"https://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?/?", endpoint):
        raise ValueError("an endpoint is https://HOST or https://HOST:PORT: encrypted, without keys, paths or queries")
    return endpoint.rstrip("/")


class ArchiveSpec(Strict):
    """A place that complete checkpoints are carried to. `address`: a folder, or s3://SERVICE[.REGION]/BUCKET[/PREFIX]."""

    address: str
    service: ServiceSpec | None = None  # of a bucket; filled in from conf/storage

    @property
    def is_folder(self) -> bool:
        return not self.address.startswith("s3:")

    @property
    def bucket(self) -> str:
        return self._part("bucket")

    @property
    def prefix(self) -> str:
        """What the names of all objects begin with, without a slash at its end; may be empty."""
        return self._part("prefix")

    def _part(self, name: str) -> str:
        found = _S3_ADDRESS.fullmatch(self.address)
        return (found[name] or "") if found else ""

    @field_validator("address")
    @classmethod
    def _has_a_form(cls, address: str) -> str:
        if _is_folder(address) or split_address(address):
            return address
        raise ValueError(_wrong_with(address))

    @model_validator(mode="after")
    def _service_is_known(self) -> ArchiveSpec:
        if not self.is_folder and self.service is None:
            raise ValueError("the service of a bucket is missing: {address: s3://..., service: {...}}")
        return self


def split_address(address: str) -> tuple[str, str | None] | None:
    """Service and region of s3://SERVICE[.REGION]/BUCKET[/PREFIX]; None where it is no such address."""
    found = _S3_ADDRESS.fullmatch(address)
    return (found["service"], found["region"]) if found and not _HAS_DOTS.search(found["prefix"] or "") else None


def _is_folder(address: str) -> bool:
    return address.startswith("/") and not _HAS_DOTS.search(address)


def _wrong_with(address: str) -> str:
    """Why it is no address, and what would be one. Of a URL no word is repeated: there may be keys in it."""
    if address.startswith("s3:"):
        reason = (
            "a bucket's name has 3 to 63 small letters, digits, dots and hyphens, a prefix letters, digits and _ . - "
            "between its slashes; keys do not belong there"
        )
    elif address.startswith("/"):
        reason = "neither . nor .. may be part of its path"
    else:
        reason = "other URLs are none" if "://" in address else f"{address!r} does not begin with a slash"
    return (
        "an archive is a folder, /such/as/this, or s3://SERVICE/BUCKET[/PREFIX] with a service of conf/storage "
        f"(`python -m aiftrain storage`); {reason}"
    )


class StorageSpec(Strict):
    """Where checkpoints go, how often, and which are kept: the last `keep_last` and every `keep_every`-th step."""

    name: str
    path: str | None = None  # home, where ranks write; None: checkpoints/ in the run folder
    save_every: int = Field(1000, ge=1)  # steps; the last step is always saved
    keep_last: int = Field(2, ge=1)
    keep_every: int | None = Field(None, ge=1)  # steps
    background: bool = True  # written beside the training, from a copy of the state in the nodes' memory
    archives: tuple[ArchiveSpec, ...] = ()  # where complete checkpoints are carried to
    ship: Literal["during", "later"] = "during"  # while the run goes on, or by a person: python -m aiftrain ship
    ship_minutes: float = Field(10.0, ge=0)  # that the end of a run waits for the archives, where it ships `during` it
    keep_unshipped: int = Field(8, ge=0)  # checkpoints that retention leaves, the newest that an archive lacks
    seal: SealSpec = SealSpec()  # what leaves home is enciphered for
    bucket: str | None = None  # BUCKET[/PREFIX] of `service`: an archive there, before the others
    service: ServiceSpec | None = None  # what the choice of storage is; gone from a resolved spec, archives hold it

    @field_validator("archives", mode="before")
    @classmethod
    def _addresses_alone(cls, archives: Any) -> Any:
        """A folder may stand for itself."""
        if not isinstance(archives, list | tuple):
            return archives
        return [{"address": archive} if isinstance(archive, str) else archive for archive in archives]

    @model_validator(mode="after")
    def _archives_differ(self) -> StorageSpec:
        home = [str(Path(self.path).absolute())] if self.path else []
        addresses = [*home, *(archive.address.rstrip("/") for archive in self.archives)]
        twice = next((address for address in addresses if addresses.count(address) > 1), None)
        if twice:
            raise ValueError(f"{twice} is named twice: a second copy in the same place is none")
        return self
