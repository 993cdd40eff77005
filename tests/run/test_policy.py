"""The policy as data: what is one, and what it says of storage services."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aiftrain.plan.spec import resolve
from aiftrain.run.policy import PolicySpec, address_of, spelled, split_host
from aiftrain.run.residency import archive_problems
from aiftrain.run.spec import RunSpec
from aiftrain.run.storage import ServiceSpec

FINNISH = ServiceSpec(
    name="store",
    title="A store in which all is Finnish",
    endpoint="https://store.example.eu",
    location="FI",
    operator="Operator",
    operator_seat="FI",
    owner_seat="FI",
    keys_held_by="operator",
)


def but(**changes: str | None) -> ServiceSpec:
    return FINNISH.model_copy(update=changes)


def shipped(name: str, *overrides: str) -> PolicySpec:
    return resolve(["recipe=smoke", f"policy={name}", *overrides]).policy


def refused(policy: PolicySpec, service: ServiceSpec, *, sealed: bool = True) -> list[str]:
    return [problem.where for problem in archive_problems(policy, service, sealed=sealed)]


def test_by_default_nothing_leaves_the_site() -> None:
    assert RunSpec.model_fields["policy"].default == PolicySpec() == resolve(["recipe=smoke"]).policy
    keys = ("locations", "operator_seats", "owner_seats")
    assert refused(PolicySpec(), FINNISH) == [f"policy.checkpoints.{key}" for key in keys]
    assert "policy=eu" in archive_problems(PolicySpec(), FINNISH, sealed=True)[0].fits


@pytest.mark.parametrize("fact", ["location", "operator_seat", "owner_seat"])
def test_each_jurisdiction_counts_and_what_is_unknown_is_refused(fact: str) -> None:
    eu = shipped("eu")
    in_norway, in_america, in_switzerland, nowhere = (but(**{fact: each}) for each in ("NO", "US", "CH", None))
    assert refused(eu, FINNISH) == refused(eu, in_norway) == []
    for service in (in_america, in_switzerland, nowhere):
        assert refused(eu, service) == [f"policy.checkpoints.{fact}s"]
    lenient = shipped("eu", f"policy.checkpoints.unknown=[{fact}]")
    assert refused(lenient, nowhere) == []
    assert refused(lenient, in_america) != []


def test_bytes_in_the_clear_lie_only_where_the_team_holds_the_keys() -> None:
    for holder, clear in (("operator", False), (None, False), ("team", True)):
        service = but(keys_held_by=holder)
        assert refused(shipped("eu"), service) == []
        assert refused(shipped("eu"), service, sealed=False) == ([] if clear else ["policy.checkpoints.seal"])
        assert refused(shipped("eu-sealed"), service, sealed=False) == ["policy.checkpoints.seal"]
    assert refused(shipped("eu", "policy.checkpoints.seal=none"), FINNISH, sealed=False) == []


def test_operators_and_hosts_can_be_named() -> None:
    named = shipped("eu", "policy.checkpoints.operators=[Other]", "policy.checkpoints.hosts=[other.example.eu]")
    assert refused(named, FINNISH) == ["policy.checkpoints.operators", "policy.checkpoints.hosts"]
    assert refused(named, but(operator="Other", endpoint="https://Other.example.eu:443/")) == []
    assert refused(named, but(operator="Other", endpoint="https://other.example.eu:8443")) != []
    assert refused(named, but(operator="Other", endpoint="https://x.other.example.eu")) != []


def test_the_union_and_the_area_have_their_members() -> None:
    eu = shipped("eu")
    union, area = eu.countries(("EU",)), eu.countries(("EEA",))
    assert (len(union), area - union) == (27, {"IS", "LI", "NO"})
    assert not area & {"CH", "GB", "US", "EL", "UK"}


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"hosts": ["*.example.eu"]}, "exact host"),
        ({"hosts": ["https://example.eu"]}, "exact host"),
        ({"wandb_hosts": ["example.eu/path"]}, "exact host"),
        ({"checkpoints": {"hosts": [""]}}, "exact host"),
        ({"checkpoints": {"locations": ["EEA"]}}, "policy.jurisdictions"),
        ({"jurisdictions": {"EU": ["Finland"]}}, "ISO 3166-1"),
        ({"networks": ["10.0.0.1/8"]}, "host bits"),
        ({"addresses": {"example.eu": ["everywhere"]}}, "everywhere"),
        ({"copies": 0}, "greater than"),
        ({"signed_by": ["key.pem.pub"]}, "public half"),
    ],
)
def test_what_is_no_policy_says_why(wrong: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match="(?s).*" + word.replace("*", r"\*")):
        PolicySpec.model_validate(wrong)


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}\.){1,3}[a-z]{2,5}", fullmatch=True), st.integers(1, 65535))
def test_a_host_is_spelled_as_it_is_read(name: str, port: int) -> None:
    assert split_host(spelled(name, port)) == (name, port)
    assert address_of(f"https://{spelled(name, port)}/path") == (name, port)


def test_addresses_of_ipv6_have_brackets() -> None:
    assert split_host("[2001:DB8::1]:8443") == ("2001:db8::1", 8443)
    assert spelled("2001:db8::1", 443) == "[2001:db8::1]"
    assert address_of("http://[2001:db8::1]/") == ("2001:db8::1", 80)
    assert address_of("http://[oops") == ("", 0)
