"""Whatever is wrong with a run's bucket, it starts, goes on, saves, says what is wrong, and ships it all later."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import Nursery, Ranks, events
from tests.ranks.sealed_runs import SealedBucket
from tests.rigs.ceph import CephRig, Certificate
from tests.rigs.daemons import free_ports
from tests.rigs.network_faults import Line, line_to, redirecting

pytestmark = [pytest.mark.ranks, pytest.mark.slow]
ENDLESS = ("train.steps=1000000", "train.evaluate_every=0")
SAVES = ("storage.save_every=20", "storage.keep_last=2", "storage.keep_unshipped=1000")


class Troubles:
    """What may be wrong with a bucket at the end of a line, and what is to be told of it."""

    def __init__(self, bucket: SealedBucket, line: Line) -> None:
        self.bucket, self.rig, self.line = bucket, bucket.rig, line

    def all(self) -> list[AbstractContextManager[str]]:
        return [
            self._certificate("expired", "the certificate of localhost has expired"),
            self._certificate("wrong-name", "who answers for localhost has a certificate of another name"),
            self._full(),
            self._slow(),
            self._ended_keys(),
            self._redirected(),
        ]

    @contextmanager
    def _certificate(self, name: Certificate, words: str) -> Iterator[str]:
        self.rig.use_certificate(name)
        yield words
        self.rig.use_certificate("good")

    @contextmanager
    def _full(self) -> Iterator[str]:
        quota = (f"--bucket={self.bucket.archive.address.split('/')[3]}", "--quota-scope=bucket")
        self.rig.admin("quota", "set", *quota, "--max-size=0")
        self.rig.admin("quota", "enable", *quota)
        yield "the quota at localhost is used up (QuotaExceeded)"
        self.rig.admin("quota", "disable", *quota)

    @contextmanager
    def _slow(self) -> Iterator[str]:
        self.line.bytes_per_s = 100e3
        yield ""
        self.line.bytes_per_s = 1e12

    @contextmanager
    def _ended_keys(self) -> Iterator[str]:
        user = self.rig.users[0]
        key = (f"--uid={user.name}", f"--access-key={user.access_key}")
        self.rig.admin("key", "rm", *key)
        yield "localhost does not know the access key (AIFTRAIN_S3_RIG_ACCESS_KEY_ID): it is wrong, or has ended"
        self.rig.admin("key", "create", *key, f"--secret-key={user.secret_key}")

    @contextmanager
    def _redirected(self) -> Iterator[str]:
        """To a host that the policy does not name; it would listen."""
        [nobody] = free_ports(1)
        with redirecting(self.rig.state, f"https://elsewhere.example:{nobody}") as (endpoint, seen):
            self.line.target = int(endpoint.rpartition(":")[2])
            yield "elsewhere.example"
            assert seen
        self.line.target = self.rig.ports.gateway


class Home:
    """A run that starts and is killed again and again."""

    def __init__(self, nursery: Nursery, run: RunFolder, bucket: SealedBucket) -> None:
        self.nursery, self.run, self.bucket = nursery, run, bucket
        self.catalog = Catalog(run.checkpoints)

    def newest(self) -> int:
        entry = self.catalog.latest()
        return entry.step if entry else 0

    def start(self) -> Ranks:
        return self.nursery.start(self.run, 1, **self.bucket.opening)

    def stop(self, ranks: Ranks) -> None:
        """As a power cut would."""
        for pid in ranks.shippers():
            os.kill(pid, signal.SIGKILL)
        ranks.kill()
        assert self.catalog.verify(self.newest()) == []

    def goes_on(self, words: str = "") -> None:
        """It starts, and saves twice and more until something is told."""
        before, ranks = self.newest(), self.start()
        ranks.until(lambda: self.newest() >= before + 40 and words in self.told(ranks))
        self.stop(ranks)

    def told(self, ranks: Ranks) -> str:
        """What the run and its shipper say in an attempt."""
        mine = (event for name in ("archive out of reach", "shipper ended") for event in events(self.run, name))
        log = self.run.attempt_logs(ranks.attempt) / "shipper.log"
        return f"{[event for event in mine if event['attempt'] == ranks.attempt]} {log.exists() and log.read_text()}"

    def ship(self) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "aiftrain", "ship", str(self.run.path)]
        environment = os.environ | self.bucket.keys
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.timeout(600)
def test_it_goes_on_and_all_arrives_in_the_end(
    nursery: Nursery, new_run: Callable[..., RunFolder], rig: CephRig, tmp_path: Path
) -> None:
    bucket = SealedBucket.new(rig, tmp_path)
    with line_to(rig.ports.gateway) as line:
        run = new_run(*ENDLESS, *SAVES, *bucket.overrides(f"https://localhost:{line.port}"), ranks=1)
        home, archive = Home(nursery, run, bucket), bucket.open(run)
        home.goes_on(f"is at {bucket.archive.address}")
        for trouble in Troubles(bucket, line).all():
            line.cut()
            with trouble as words:
                home.goes_on(words)
            assert all(archive.verify(step) == [] for step in archive.steps())
        shipped = home.ship()
    assert shipped.returncode == 0, shipped.stdout + shipped.stderr
    assert set(archive.steps()) >= set(home.catalog.steps())
    assert all(archive.verify(step) == [] for step in archive.steps())
    assert list(bucket.told(run)) == []


@pytest.mark.timeout(600)
def test_of_two_homes_of_a_run_each_goes_on_and_nothing_is_mixed(
    nursery: Nursery, new_run: Callable[..., RunFolder], rig: CephRig, tmp_path: Path
) -> None:
    bucket = SealedBucket.new(rig, tmp_path)
    run = new_run(*ENDLESS, *SAVES, *bucket.overrides(), ranks=1)
    home, archive = Home(nursery, run, bucket), bucket.open(run)
    home.goes_on(f"is at {bucket.archive.address}")
    other = Home(nursery, RunFolder(shutil.copytree(run.path, tmp_path / "other")), bucket)
    pairs = [(each, each.start()) for each in (home, other)]
    ranks = pairs[0][1]
    ranks.until(lambda: any("has another checkpoint of step" in each.told(its) for each, its in pairs))
    for each, its in pairs:
        each.stop(its)
    assert all(archive.verify(step) == [] for step in archive.steps())
    for each, _ in pairs:
        each.goes_on()
    assert all(archive.verify(step) == [] for step in archive.steps())
