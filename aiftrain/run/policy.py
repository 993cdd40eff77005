"""The residency policy: where the bytes of a run may go. What it does not allow is refused.

A policy is data, in conf/policy/: which jurisdictions, operators and hosts may hold what, and under which seal. All of
it stands in run.json, so that every program that works on a run decides alike (aiftrain.run.residency and .egress).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from aiftrain.run.base import Provenance, Strict

Fact = Literal["location", "operator_seat", "owner_seat"]

HTTP, HTTPS = 80, 443
_PUBLIC_KEY = "-----BEGIN PUBLIC KEY-----"
_COUNTRY = re.compile("[A-Z]{2}")
_HOST = re.compile(r"(?:\[(?P<literal>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9_.-]+))(?::(?P<port>\d{1,5}))?")


class Rule(Strict):
    """What may hold checkpoints away from the site. All conditions hold together; an empty list lets nothing by.

    A jurisdiction is a country (ISO 3166-1, two letters) or a name of `policy.jurisdictions`. `hosts` are exact names.
    """

    locations: tuple[str, ...] = ()  # of the bytes
    operator_seats: tuple[str, ...] = ()  # whose law the operator is under
    owner_seats: tuple[str, ...] = ()  # whose law those who control the operator are under
    operators: tuple[str, ...] | None = None  # by name; None: all whose seats fit
    hosts: tuple[str, ...] | None = None  # of endpoints, such as lumidata.eu; None: those of all services that fit
    unknown: tuple[Fact, ...] = ()  # facts that nobody may know; any other that is not known counts as not allowed
    # What the bytes must be. `keys`: sealed, but where the team itself holds the store's keys; `none`: as they are
    seal: Literal["sealed", "keys", "none"] = "sealed"

    @field_validator("hosts")
    @classmethod
    def _hosts_are_exact(cls, hosts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if hosts is None else exact(hosts)


class PolicySpec(Strict):
    """Where the bytes of a run may go. By default nowhere: they stay on file systems of the site.

    `checkpoints` decides on storage services, `wandb_hosts` on where metrics go, `fuse` on file systems that hold any
    of a run's bytes. Nothing here sends logs or data anywhere else.
    """

    name: str = "site"
    jurisdictions: dict[str, tuple[str, ...]] = {}  # names for several countries, such as EEA
    checkpoints: Rule = Rule()
    copies: int = Field(1, ge=1, le=2)  # of every checkpoint, home among them, at different places
    signed_by: tuple[str, ...] = ()  # public keys (PEM): what none of them has signed is not gone on from; (): anything
    wandb_hosts: tuple[str, ...] = ()  # of wandb servers that metrics may be sent to: HOST or HOST:PORT
    fuse: tuple[str, ...] = ()  # programs whose file systems are the site's, as ceph-fuse: FUSE is what users can mount
    hosts: tuple[str, ...] = ()  # that a run may connect to besides: HOST or HOST:PORT, 443 where none is named
    addresses: dict[str, tuple[str, ...]] = {}  # HOST: networks that its addresses must be of, as 192.0.2.0/24
    networks: tuple[str, ...] = ()  # that belong to the job's nodes, where their names do not lead there
    on_violation: Literal["record", "stop"] = "record"  # when a connection of native code is seen that none allows
    provenance: dict[str, Provenance] = {}

    @property
    def signers(self) -> tuple[str, ...]:
        """The fingerprints of the keys in `signed_by`, as a signature names its own."""
        return tuple(hashlib.sha256(key.encode()).hexdigest() for key in self.signed_by)

    def countries(self, allowed: tuple[str, ...]) -> set[str]:
        """The countries that a rule's jurisdictions mean."""
        return {country for name in allowed for country in self.jurisdictions.get(name, (name,))}

    @field_validator("wandb_hosts", "hosts")
    @classmethod
    def _hosts_are_exact(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return exact(hosts)

    @field_validator("signed_by")
    @classmethod
    def _are_public(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if not all(key.startswith(_PUBLIC_KEY) for key in keys):
            raise ValueError(f"a key that signs is named by its public half: a text that begins with {_PUBLIC_KEY}")
        return keys

    @field_validator("networks")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        return _checked_networks(networks)

    @field_validator("addresses")
    @classmethod
    def _are_pinned_to_networks(cls, addresses: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return {split_host(host)[0]: _checked_networks(networks) for host, networks in addresses.items()}

    @model_validator(mode="after")
    def _jurisdictions_are_known(self) -> PolicySpec:
        for key in ("locations", "operator_seats", "owner_seats"):
            for name in getattr(self.checkpoints, key):
                if name not in self.jurisdictions and not _COUNTRY.fullmatch(name):
                    raise ValueError(f"checkpoints.{key}: {name!r} is {self._no_jurisdiction()}")
        for name, countries in self.jurisdictions.items():
            wrong = [country for country in countries if not _COUNTRY.fullmatch(country)]
            if wrong:
                raise ValueError(f"jurisdictions.{name}: {wrong[0]!r} is no country: two letters of ISO 3166-1")
        return self

    def _no_jurisdiction(self) -> str:
        named = f"; named here: {', '.join(self.jurisdictions)}" if self.jurisdictions else ""
        return f"no country (two letters of ISO 3166-1, such as FI) and no name of policy.jurisdictions{named}"


def exact(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """The hosts in lower case. ValueError for one that is no exact name: a wildcard, an address of a page."""
    return tuple(_checked_host(host) for host in hosts)


def split_host(host: str, port: int = HTTPS) -> tuple[str, int]:
    """Name and port of `HOST`, `HOST:PORT` or `[IPV6]:PORT`, in lower case. ValueError where it has another form."""
    found = _HOST.fullmatch(host)
    if found is None:
        raise ValueError(f"{host!r} is no exact host: HOST or HOST:PORT, such as lumidata.eu, without https:// and *")
    return (found["literal"] or found["name"]).lower().rstrip("."), int(found["port"] or port)


def address_of(url: str) -> tuple[str, int]:
    """Host and port that a URL, or HOST:PORT, leads to; ("", 0) where it leads nowhere."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        return parts.hostname or "", parts.port or (HTTP if parts.scheme == "http" else HTTPS)
    except ValueError:
        return "", 0


def spelled(host: str, port: int) -> str:
    """A host as a policy names it."""
    name = f"[{host}]" if ":" in host else host
    return name if port == HTTPS else f"{name}:{port}"


def _checked_host(host: str) -> str:
    split_host(host)
    return host.lower()


def _checked_networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    for network in networks:
        ipaddress.ip_network(network)  # its ValueError says what is wrong
    return networks
