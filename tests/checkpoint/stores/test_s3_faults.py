"""What goes wrong with a service is one clear message, or waited out: on a real gateway that is killed and frozen."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import botocore.auth
import botocore.compat
import pytest
from urllib3 import HTTPConnectionPool
from urllib3.exceptions import ProtocolError

from aiftrain.checkpoint.stores.credentials import Credentials
from aiftrain.checkpoint.stores.s3.faults import explain_silence
from aiftrain.checkpoint.stores.s3.store import S3Store
from aiftrain.errors import AiftrainError, MachineError, UserError
from aiftrain.run.storage import ArchiveSpec
from tests.checkpoint.stores.test_s3 import noise, put
from tests.rigs.buckets import keys_of, new_bucket, open_store, service_of
from tests.rigs.ceph import CephRig, Certificate
from tests.rigs.daemons import free_ports
from tests.rigs.network_faults import line_to

MIB = 2**20


@pytest.fixture(scope="module")
def archive(rig: CephRig) -> ArchiveSpec:
    return new_bucket(rig)


def at(archive: ArchiveSpec, endpoint: str, **changes: object) -> ArchiveSpec:
    """The same bucket at another endpoint."""
    assert archive.service is not None
    return archive.model_copy(update={"service": archive.service.model_copy(update={"endpoint": endpoint, **changes})})


def told(store: S3Store, kind: type[AiftrainError], *secrets: str) -> str:
    """What a person is told of a store that cannot be used, by every way of using it; never a secret."""
    messages = []
    uses: list[Callable[[], object]] = [store.check, lambda: store.entry("name"), lambda: put(store, "name", b"x")]
    for use in uses:
        with pytest.raises(kind) as error:
            use()
        messages.append(str(error.value))
    store.close()
    assert not any(secret in text for secret in secrets for text in [*messages, repr(error.value)])
    return "\n".join(messages)


def test_wrong_and_ended_keys(rig: CephRig, archive: ArchiveSpec) -> None:
    good = keys_of(rig.users[0])
    wrong = told(S3Store(archive, replace(good, secret_key="guessed-secret")), UserError, "guessed-secret")
    assert wrong.count("the secret key is not that of the access key (the rig's user a)") == 3
    unknown = told(S3Store(archive, replace(good, access_key="GONE-KEY")), UserError, "GONE-KEY", good.secret_key)
    assert unknown.count("localhost does not know the access key (the rig's user a): it is wrong, or has ended") == 3


def test_no_such_bucket(rig: CephRig, archive: ArchiveSpec) -> None:
    nowhere = archive.model_copy(update={"address": "s3://rig/no-such-bucket"})
    store = open_store(rig, nowhere)
    with pytest.raises(UserError, match=r"cannot use s3://rig/no-such-bucket: localhost has no such bucket"):
        store.check()
    with pytest.raises(UserError, match="has no such bucket"):
        put(store, "name", b"content")


@pytest.mark.parametrize(("ahead", "words"), [(3600, "3,[56].. seconds ahead of"), (-7200, "7,[12].. seconds behind")])
def test_a_wrong_clock_is_told_with_how_wrong_it_is(
    rig: CephRig, archive: ArchiveSpec, ahead: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's clock is right; this process believes in another time."""
    really, now = time.time, botocore.compat.get_current_datetime
    monkeypatch.setattr(time, "time", lambda: really() + ahead)

    def skewed(remove_tzinfo: bool = True) -> datetime:
        moment: datetime = now(remove_tzinfo)
        return moment + timedelta(seconds=ahead)

    monkeypatch.setattr(botocore.auth, "get_current_datetime", skewed)
    with pytest.raises(MachineError, match=f"the clock of this machine is {words} that of localhost"):
        open_store(rig, archive).check()


def test_hosts_that_are_not_there(rig: CephRig, archive: ArchiveSpec) -> None:
    [port] = free_ports(1)
    closed = S3Store(at(archive, f"https://localhost:{port}"), keys_of(rig.users[0]), patience=0.3)
    assert told(closed, MachineError).count("localhost cannot be reached (Connection refused)") == 3
    nameless = S3Store(at(archive, "https://no-such-host.invalid"), keys_of(rig.users[0]), patience=0.3)
    assert "no-such-host.invalid has no address here" in told(nameless, MachineError)


@contextmanager
def certificate(rig: CephRig, name: Certificate) -> Iterator[None]:
    rig.use_certificate(name)
    try:
        yield
    finally:
        rig.use_certificate("good")


def test_certificates_that_are_not_to_be_trusted(rig: CephRig, archive: ArchiveSpec, tmp_path: Path) -> None:
    keys = keys_of(rig.users[0])
    with certificate(rig, "expired"):
        assert told(S3Store(archive, keys), MachineError).count("the certificate of localhost has expired") == 3
    with certificate(rig, "wrong-name"):
        words = "who answers for localhost has a certificate of another name"
        assert told(S3Store(archive, keys), MachineError).count(words) == 3
    unknown = told(S3Store(at(archive, rig.endpoint, ca_file=None), keys), MachineError)
    assert unknown.count("signed by nobody whom this machine trusts") == 3 and "storage.service.ca_file" in unknown
    for file in ("none.pem", "empty.pem"):
        (tmp_path / "empty.pem").touch()
        with pytest.raises(UserError, match=rf"storage.service.ca_file: cannot read .*{file}"):
            S3Store(at(archive, rig.endpoint, ca_file=str(tmp_path / file)), keys)


def test_a_used_up_quota_is_told_as_such(rig: CephRig, archive: ArchiveSpec) -> None:
    store = open_store(rig, archive)
    rig.set_quota(rig.users[0], mib=8)
    try:
        with pytest.raises(MachineError, match=r"the quota at localhost is used up \(QuotaExceeded\)"):
            for number in range(4):
                put(store, f"object-{number}", noise(4 * MIB))
        with pytest.raises(MachineError, match="the quota at localhost is used up"):
            put(store, "large", noise(12 * MIB))
        assert store.clear_unfinished() == 0
    finally:
        rig.set_quota(rig.users[0], mib=None)


@pytest.mark.slow
def test_a_killed_gateway_is_waited_for(rig: CephRig, archive: ArchiveSpec) -> None:
    """In the middle of an upload and of a download, at 12 MB/s; a second later it is there again.

    It is started by the thread that lives on: the system ends daemons together with the thread that started them.
    """
    content = noise(12 * MIB)
    with line_to(rig.ports.gateway, 12e6) as line, ThreadPoolExecutor(1) as pool:
        store = open_store(rig, at(archive, f"https://localhost:{line.port}"), patience=60.0)
        for work in (lambda: put(store, "object", content), lambda: b"".join(store.blocks("object"))):
            line.carried = 0
            result = pool.submit(work)
            _await(lambda: line.carried > 4 * MIB)
            rig.kill_gateway()
            time.sleep(1.0)
            assert not result.done()
            rig.start_gateway()
            assert result.result() in (None, content)
    assert open_store(rig, archive).clear_unfinished() == 0


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_gateway_that_stays_away_is_given_up(rig: CephRig, archive: ArchiveSpec) -> None:
    store = open_store(rig, archive, patience=1.0)
    rig.kill_gateway()
    try:
        begin = time.monotonic()
        with pytest.raises(MachineError, match=r"localhost cannot be reached \(Connection refused\); tried for \d"):
            put(store, "object", noise(12 * MIB))
        assert time.monotonic() - begin < 20
    finally:
        rig.start_gateway()


def test_cut_connections_cost_nothing_but_time(rig: CephRig, archive: ArchiveSpec) -> None:
    """Cut after so many bytes, not seconds: as often on a machine that is busy."""
    content = noise(11 * MIB)
    with line_to(rig.ports.gateway, 16e6) as line, ThreadPoolExecutor(1) as pool:
        store = open_store(rig, at(archive, f"https://localhost:{line.port}"), patience=60.0)
        for work in (lambda: put(store, "cut-off", content, new=True), lambda: b"".join(store.blocks("cut-off"))):
            line.carried = 0
            result = pool.submit(work)
            for mib in (2, 5, 8):
                _await(lambda mib=mib: line.carried > mib * MIB)  # type: ignore[misc]
                line.cut()
            assert result.result() in (None, content)
            assert line.carried > 11 * MIB, "what was cut off went again"


def test_a_new_object_whose_answer_was_lost_is_ours(rig: CephRig, archive: ArchiveSpec) -> None:
    """The request arrives, and the line is cut before the answer; the next try finds the object in the way."""
    with line_to(rig.ports.gateway) as line:
        store = open_store(rig, at(archive, f"https://localhost:{line.port}"))
        assert store.decides_races
        send = store.client.once

        def lost(operation: str, **parameters: object) -> dict[str, object]:
            answer = send(operation, **parameters)
            if operation == "put_object":
                store.client.once = send  # type: ignore[method-assign]
                raise ConnectionResetError("the answer was lost")
            return answer

        store.client.once = lost  # type: ignore[method-assign]
        put(store, "mine", b"content", new=True)
        assert b"".join(store.blocks("mine")) == b"content"


def test_frozen_disks_are_given_up_in_time(rig: CephRig, archive: ArchiveSpec) -> None:
    store = open_store(rig, archive, patience=2.0, wait=1.0)
    rig.freeze()
    try:
        begin = time.monotonic()
        with pytest.raises(MachineError, match="localhost does not answer in time; tried for"):
            put(store, "object", noise(1000))
        assert time.monotonic() - begin < 30
    finally:
        rig.thaw()


def test_a_service_that_stops_reading_does_not_answer_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        pool = HTTPConnectionPool("127.0.0.1", deaf.getsockname()[1], timeout=0.2, retries=False)
        with pytest.raises(ProtocolError) as stopped:
            pool.urlopen("PUT", "/", body=bytes(32 * MIB))
    told = str(explain_silence(stopped.value, "write it", "deaf.example", 3.0))
    assert told == "cannot write it: deaf.example does not answer in time; tried for 3 seconds"


def test_a_slow_line_is_slow_and_no_failure(rig: CephRig, archive: ArchiveSpec) -> None:
    """4 MB/s for 12 MB, three parts at a time: no wait for the other side is long, but for what buffers hold."""
    with line_to(rig.ports.gateway, 4e6) as line:
        store = open_store(rig, at(archive, f"https://localhost:{line.port}"), wait=15.0, patience=0.0)
        begin = time.monotonic()
        put(store, "object", noise(12 * MIB))
        assert time.monotonic() - begin > 2.7
        assert 12 * MIB < line.carried < 12.5 * MIB, "nothing was sent twice"


def test_keys_are_in_no_repr(rig: CephRig, archive: ArchiveSpec) -> None:
    keys = Credentials("a file", "ACCESS", "hush-secret", "hush-token")
    shown = f"{keys!r} {keys} {S3Store(archive, keys)!r} {S3Store(archive, keys).client!r}"
    assert "a file" in shown and "hush" not in shown and "ACCESS" not in shown
    assert service_of(rig).endpoint == rig.endpoint
