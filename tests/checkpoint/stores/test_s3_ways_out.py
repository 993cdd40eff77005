"""A store connects to its service and to nothing else: no redirect, proxy, variable or file leads it elsewhere."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aiftrain.checkpoint.stores.s3.store import S3Store
from aiftrain.errors import MachineError, UserError
from aiftrain.run.storage import ArchiveSpec
from tests.checkpoint.stores.test_s3 import put
from tests.checkpoint.stores.test_s3_faults import at
from tests.rigs.buckets import keys_of, new_bucket, open_store
from tests.rigs.ceph import CephRig
from tests.rigs.network_faults import redirecting


class StrictGate:
    """Lets through what it was told, and remembers what it was asked."""

    def __init__(self, *allowed: str) -> None:
        self.allowed, self.asked = set(allowed), list[str]()

    def endpoint(self, host: str, port: int) -> None:
        self._check(f"endpoint {host}")

    def address(self, host: str, address: str, port: int) -> None:
        self._check(f"address {host} {address}")

    def redirect(self, host: str, target: str, port: int) -> None:
        self._check(f"redirect {host} {target}")

    def _check(self, question: str) -> None:
        self.asked.append(question)
        if question not in self.allowed:
            raise UserError(f"rule 7 forbids {question}")


@pytest.fixture(scope="module")
def archive(ceph: CephRig) -> ArchiveSpec:
    return new_bucket(ceph)


@pytest.fixture
def nobody() -> Iterator[socket.socket]:
    """Somebody listens here, and must not be called."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def test_the_gate_is_asked_for_the_host_and_for_each_of_its_addresses(ceph: CephRig, archive: ArchiveSpec) -> None:
    gate = StrictGate("endpoint localhost", "address localhost 127.0.0.1", "address localhost ::1")
    store = S3Store(archive, keys_of(ceph.users[0]), gate)
    store.check()
    found = dict.fromkeys(str(target[0]) for *_, target in socket.getaddrinfo("localhost", None))
    assert gate.asked == ["endpoint localhost", *(f"address localhost {address}" for address in found)]


def test_a_host_that_is_not_allowed_is_not_looked_up(
    ceph: CephRig, archive: ArchiveSpec, nobody: socket.socket
) -> None:
    with pytest.raises(UserError, match="rule 7 forbids endpoint localhost"):
        S3Store(at(archive, f"https://localhost:{port_of(nobody)}"), keys_of(ceph.users[0]), StrictGate())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_an_allowed_name_that_leads_elsewhere_is_not_connected_to(
    ceph: CephRig, archive: ArchiveSpec, nobody: socket.socket, host: str
) -> None:
    gate = StrictGate(f"endpoint {host}", f"address {host} ::1")
    store = S3Store(at(archive, f"https://{host}:{port_of(nobody)}"), keys_of(ceph.users[0]), gate)
    with pytest.raises(UserError, match=f"rule 7 forbids address {host} 127.0.0.1"):
        store.check()


def test_an_ipv6_literal_is_an_address_like_any_other(ceph: CephRig, archive: ArchiveSpec) -> None:
    store = S3Store(at(archive, "https://[::1]:1"), keys_of(ceph.users[0]), StrictGate("endpoint ::1"))
    with pytest.raises(UserError, match="rule 7 forbids address ::1 ::1"):
        store.check()


@pytest.mark.parametrize("certificate", ["wrong-name", "expired", "of nobody we know"])
def test_who_answers_at_an_allowed_name_without_its_certificate_is_sent_nothing(
    ceph: CephRig, archive: ArchiveSpec, certificate: str
) -> None:
    known = certificate != "of nobody we know"
    with redirecting(ceph.state, "https://localhost:1", certificate=certificate if known else "good") as (url, seen):
        facts = {} if known else {"ca_file": None}
        store = S3Store(at(archive, url, **facts), keys_of(ceph.users[0]))
        uses: list[Callable[[], object]] = [store.check, lambda: put(store, "a", b"secret")]
        for use in uses:
            with pytest.raises(MachineError, match="certificate"):
                use()
        assert seen == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(ceph: CephRig, archive: ArchiveSpec, nobody: socket.socket, status: int) -> None:
    with redirecting(ceph.state, f"https://127.0.0.1:{port_of(nobody)}", status) as (endpoint, seen):
        store = S3Store(at(archive, endpoint), keys_of(ceph.users[0]))
        uses: list[Callable[[], object]] = [store.check, lambda: store.entry("a"), lambda: put(store, "a", b"secret")]
        for use in uses:
            with pytest.raises(UserError, match=r"localhost sends requests on to 127\.0\.0\.1, which nobody"):
                use()
        assert len(seen) == 3, "and it was not asked again"


def test_an_allowed_redirect_is_followed_and_signed_anew(ceph: CephRig, archive: ArchiveSpec) -> None:
    there = f"https://127.0.0.1:{ceph.ports.gateway}"
    with redirecting(ceph.state, there) as (endpoint, seen):
        gate = StrictGate(
            *("endpoint localhost", "endpoint 127.0.0.1", "redirect localhost 127.0.0.1"),
            *(f"address {host} {number}" for host in ("localhost", "127.0.0.1") for number in ("127.0.0.1", "::1")),
        )
        store = S3Store(at(archive, endpoint), keys_of(ceph.users[0]), gate)
        put(store, "redirected", b"content")
        assert len(seen) == 1, "from then on it goes there straight away"
    assert b"".join(open_store(ceph, archive).blocks("redirected")) == b"content"


def test_redirects_in_a_circle_and_to_plain_http_end(ceph: CephRig, archive: ArchiveSpec) -> None:
    with redirecting(ceph.state, "https://localhost:1") as (endpoint, seen):
        with pytest.raises(UserError, match="localhost sends requests on to https://localhost, in vain"):
            S3Store(at(archive, endpoint), keys_of(ceph.users[0])).check()
        assert len(seen) == 2
    with (
        redirecting(ceph.state, "http://localhost:1") as (endpoint, _),
        pytest.raises(UserError, match="to http://loc"),
    ):
        S3Store(at(archive, endpoint), keys_of(ceph.users[0])).check()


_USE = """
import json, sys
WATCHED = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen")
calls = []
def watch(event, arguments):
    if event in WATCHED:
        calls.append([event, str(arguments[1 if event == "socket.connect" else 0])])
sys.addaudithook(watch)
from aiftrain.checkpoint.stores.bucket import open_bucket
from aiftrain.run.storage import ArchiveSpec
store = open_bucket(ArchiveSpec.model_validate_json(sys.stdin.read()))
store.write("used", [b"content"], 7, new=True)
assert b"".join(store.blocks("used")) == b"content"
print(json.dumps(calls))
"""


def test_neither_variables_nor_files_lead_elsewhere(
    ceph: CephRig, archive: ArchiveSpec, nobody: socket.socket, tmp_path: Path
) -> None:
    """The program sees every connection and every look-up of its own; there is one place that it goes to."""
    elsewhere = f"127.0.0.1:{port_of(nobody)}"
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(
        f"[default]\nendpoint_url = https://{elsewhere}\ns3 =\n  addressing_style = virtual\n"
        f"credential_process = /usr/bin/false\nca_bundle = /none\ncsm_enabled = true\n"
    )
    user = ceph.users[0]
    proxies = {name: f"http://{elsewhere}" for kind in ("http", "https", "all") for name in _cases(f"{kind}_proxy")}
    environ = {
        **{"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "."), "HOME": str(tmp_path)},
        **proxies,
        "AIFTRAIN_S3_RIG_ACCESS_KEY_ID": user.access_key,
        "AIFTRAIN_S3_RIG_SECRET_ACCESS_KEY": user.secret_key,
        "AWS_ENDPOINT_URL": f"https://{elsewhere}",
        "AWS_ENDPOINT_URL_S3": f"https://{elsewhere}",
        "AWS_PROFILE": "no-such-profile",
        "AWS_CA_BUNDLE": "/none",
        "AWS_DEFAULTS_MODE": "auto",
        "AWS_CSM_ENABLED": "true",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{elsewhere}",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{elsewhere}",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported",
        "AWS_USE_FIPS_ENDPOINT": "true",
    }
    answer = subprocess.run(
        [sys.executable, "-c", _USE],
        input=archive.model_dump_json(),
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    calls = {(event, where) for event, where in json.loads(answer.stdout.splitlines()[-1])}
    addresses = {("socket.connect", f"('127.0.0.1', {ceph.ports.gateway})")}
    addresses |= {("socket.connect", f"('::1', {ceph.ports.gateway}, 0, 0)")}
    looked_up = {("socket.getaddrinfo", host) for host in ("localhost", "127.0.0.1", "::1")}
    assert calls <= addresses | looked_up
    assert calls & addresses


def _cases(name: str) -> tuple[str, str]:
    return name, name.upper()
