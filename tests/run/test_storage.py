"""Addresses of archives and facts of services: what is taken, and what is refused without repeating a secret."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from aiftrain.run.storage import ArchiveSpec, Region, ServiceSpec, StorageSpec, split_address

SERVICE = ServiceSpec(
    name="store",
    title="A store",
    endpoint="https://s3.north.example.eu",
    region="north",
    location="FI",
    certifications=("SecNumCloud",),
    regions={"south": Region(endpoint="https://s3.south.example.eu:8443", location="IT")},
)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("s3://lumi-o/bucket", ("lumi-o", None)),
        ("s3://lumi-o/bucket/", ("lumi-o", None)),
        ("s3://ovhcloud.waw/my.bucket-1/a/b_c.d", ("ovhcloud", "waw")),
        ("s3://lumi-o", None),
        ("s3://lumi-o/ab", None),  # a bucket's name has three characters at least
        ("s3://Lumi/bucket", None),
        ("s3://key:secret@lumi-o/bucket", None),
        ("s3://lumi-o/bucket/../other", None),
        ("s3://lumi-o/bucket//a", None),
        ("s3://lumi-o/bucket/ä", None),
        ("https://lumidata.eu/bucket", None),
    ],
)
def test_an_s3_address_has_one_form(address: str, parts: tuple[str, str | None] | None) -> None:
    assert split_address(address) == parts


def test_an_archive_knows_its_bucket_and_prefix() -> None:
    deep = ArchiveSpec(address="s3://store.south/bucket/a/b/", service=SERVICE.at("south"))
    assert (deep.bucket, deep.prefix, deep.is_folder) == ("bucket", "a/b", False)
    assert ArchiveSpec(address="s3://store/bucket", service=SERVICE).prefix == ""
    assert ArchiveSpec(address="/scratch/archive").is_folder


@pytest.mark.parametrize("address", ["relative", "~/x", "/a/../b", "http://h/b", "s3://key:hush@store/bucket", "s3:/x"])
def test_what_is_no_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(ValidationError) as error:
        ArchiveSpec(address=address, service=SERVICE)
    assert "hush" not in error.value.errors(include_input=False)[0]["msg"]


def test_a_bucket_needs_its_service() -> None:
    with pytest.raises(ValidationError, match="service of a bucket is missing"):
        ArchiveSpec(address="s3://store/bucket")


def test_a_service_in_another_region_is_another_place() -> None:
    south = SERVICE.at("south")
    assert (south.region, south.location, south.host, south.regions) == ("south", "IT", "s3.south.example.eu", {})
    assert south.certifications == (), "what the first region is certified for says nothing of the others"
    assert SERVICE.at("north").certifications == ("SecNumCloud",)
    with pytest.raises(KeyError):
        SERVICE.at("west")


@pytest.mark.parametrize(
    "endpoint",
    ["http://store.eu", "https://key:hush@store.eu", "https://store.eu/path", "https://store.eu?x=1", "store.eu", ""],
)
def test_an_endpoint_is_encrypted_and_has_no_secret(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="an endpoint is https") as error:
        ServiceSpec(name="store", title="A store", endpoint=endpoint)
    assert "hush" not in error.value.errors(include_input=False)[0]["msg"]


def test_an_endpoint_may_be_an_ipv6_address_and_says_its_host_alone() -> None:
    assert ServiceSpec(name="s", title="S", endpoint="https://[2001:DB8::1]:8443").host == "2001:db8::1"


@pytest.mark.parametrize("seat", ["Finland", "fi", "EU1"])
def test_a_seat_is_a_country(seat: str) -> None:
    with pytest.raises(ValidationError, match="two letters"):
        ServiceSpec(name="s", title="S", endpoint="https://store.eu", owner_seat=seat)


def test_two_archives_in_one_place_are_refused() -> None:
    with pytest.raises(ValidationError, match="/a is named twice"):
        StorageSpec(name="local", archives=["/a", "/a/"])  # as YAML has them
