"""kill -9 in the middle of everything: a run ships sealed checkpoints to a live bucket, and nothing bad comes of it.

At random moments a rank, a writer, the shipper, the store's gateway, or the whole node with all that lies on it is
killed. AIFTRAIN_KILLS is how many times (5 by default, each once), AIFTRAIN_SEED what the moments are drawn from.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from aiftrain.checkpoint.archived_custody import custody_faults
from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.ledger import NAME as LEDGER
from aiftrain.checkpoint.sealing.opened import open_checkpoint
from aiftrain.checkpoint.sealing.stored import SealedCheckpoint
from aiftrain.errors import EXIT_RESUME
from aiftrain.run.folder import RunFolder, read_lines
from tests.ranks.conftest import Nursery, Ranks, events, losses
from tests.ranks.sealed_runs import SealedBucket
from tests.rigs.ceph import CephRig

pytestmark = [pytest.mark.ranks, pytest.mark.slow]
VICTIMS = ("rank", "writer", "shipper", "gateway", "node")
RANKS = 2
KILLS = int(os.environ.get("AIFTRAIN_KILLS", "5"))
SEED = int(os.environ.get("AIFTRAIN_SEED", random.randrange(2**32)))
ENDLESS = ("train.steps=1000000", "train.evaluate_every=0")
SAVES = ("storage.save_every=5", "storage.keep_last=4")


class Campaign:
    """A run, whatever of it may be killed, and what holds after every kill."""

    def __init__(self, nursery: Nursery, run: RunFolder, bucket: SealedBucket, dice: random.Random) -> None:
        self.nursery, self.run, self.bucket, self.dice = nursery, run, bucket, dice
        self.home, self.archive = Catalog(run.checkpoints), bucket.open(run)
        self.reached = 0  # the newest checkpoint at home
        self.verified = set[int]()  # in the bucket
        self.killed = Counter[str]()
        self.ranks = self._start()

    def kill(self, victim: str) -> None:
        """At a random moment, and what a launcher or an operator would do then."""
        time.sleep(self.dice.uniform(0, 1))
        getattr(self, f"_kill_{victim}")()
        self.killed[victim] += 1

    def check(self) -> None:
        """What is called good is good, and nothing that was good is gone."""
        newest = self.home.latest()
        assert newest is not None and newest.step >= self.reached, self.ranks.log()
        assert self.home.verify(newest.step) == []
        self.reached = newest.step
        self._check_bucket()

    def until_saved(self) -> None:
        """Until home has a checkpoint that it did not have."""
        self.ranks.until(lambda: max(self.home.steps(), default=0) > self.reached + 5)

    def end(self) -> None:
        """As a scheduler asks for it; then all that is left is carried to the bucket."""
        self.ranks.signal(signal.SIGTERM)
        assert self.ranks.wait() == [EXIT_RESUME] * RANKS, self.ranks.log()
        self.ranks.until(lambda: not self.ranks.shippers())  # one whose ranks were killed brings what there is
        ship = [sys.executable, "-m", "aiftrain", "ship", str(self.run.path)]
        shipped = subprocess.run(ship, env=os.environ | self.bucket.keys, capture_output=True, text=True, timeout=120)
        assert shipped.returncode == 0, shipped.stdout + shipped.stderr
        self.check()
        assert self.verified >= set(self.home.steps())

    def _kill_rank(self) -> None:
        if self.dice.random() < 0.8:  # else anywhere in the start
            self.until_saved()
            time.sleep(self.dice.uniform(0, 0.2))
        os.kill(self.dice.choice(self.ranks.pids), signal.SIGKILL)
        time.sleep(self.dice.uniform(0, 0.2))
        self.ranks.kill()
        self.ranks = self._start()

    def _kill_writer(self) -> None:
        before = len(events(self.run, "writer restarted"))
        self.ranks.until(lambda: bool(self.ranks.writers()))
        os.kill(self.dice.choice(self.ranks.writers()), signal.SIGKILL)
        self.ranks.until(lambda: len(events(self.run, "writer restarted")) > before)

    def _kill_shipper(self) -> None:
        self._until_shipping()
        self.ranks.until(lambda: bool(self.ranks.shippers()))
        os.kill(self.dice.choice(self.ranks.shippers()), signal.SIGKILL)

    def _kill_gateway(self) -> None:
        self._until_shipping()
        self.bucket.rig.kill_gateway()
        time.sleep(self.dice.uniform(0, 3))
        self.bucket.rig.start_gateway()

    def _kill_node(self) -> None:
        """With its disk: the run goes on elsewhere, from the bucket."""
        for pid in self.ranks.shippers():
            os.kill(pid, signal.SIGKILL)
        self.ranks.kill()
        shutil.rmtree(self.home.folder)
        self._check_bucket()
        self.reached = max(self.verified)
        self.ranks = self._start()
        self.until_saved()
        assert events(self.run, "fetched")[-1]["step"] >= self.reached

    def _until_shipping(self) -> None:
        """Most moments are those in which a checkpoint is on its way: one has just arrived, the next one follows."""
        if self.dice.random() < 0.8:
            before = self._last_arrival()
            self.ranks.until(lambda: self._last_arrival() > before)
            time.sleep(self.dice.uniform(0, 0.3))

    def _last_arrival(self) -> int:
        ledger = self.home.folder / LEDGER
        return ledger.stat().st_mtime_ns if ledger.exists() else 0

    def _check_bucket(self) -> None:
        steps = set(self.archive.steps())
        assert self.verified <= steps, "a checkpoint was lost"
        for step in steps - self.verified:
            entry = self.archive.find(step)
            assert isinstance(entry, SealedCheckpoint)
            assert entry.verify() == open_checkpoint(entry, self.bucket.identities).verify() == []
            assert custody_faults(self.archive.store, self.archive.lineage, step, entry.digest) == []
        self.verified = steps

    def _start(self) -> Ranks:
        return self.nursery.start(self.run, RANKS, **self.bucket.opening)


def drawn(dice: random.Random) -> list[str]:
    """Victims, each as often as any other."""
    turns = (dice.sample(VICTIMS, len(VICTIMS)) for _ in range(-(-KILLS // len(VICTIMS))))
    return [victim for turn in turns for victim in turn][:KILLS]


@pytest.mark.timeout(600 + 60 * KILLS)
def test_whatever_is_killed_the_run_goes_on_and_every_checkpoint_is_good(
    nursery: Nursery, new_run: Callable[..., RunFolder], rig: CephRig, tmp_path: Path
) -> None:
    print(f"AIFTRAIN_KILLS={KILLS} AIFTRAIN_SEED={SEED}")
    began, dice = time.monotonic(), random.Random(SEED)
    bucket = SealedBucket.new(rig, tmp_path)
    run = new_run(*ENDLESS, *SAVES, *bucket.overrides(), ranks=RANKS)
    campaign = Campaign(nursery, run, bucket, dice)
    campaign.ranks.until(lambda: bool(campaign.archive.steps()))
    for number, victim in enumerate(drawn(dice), 1):
        campaign.kill(victim)
        campaign.until_saved()
        campaign.check()
        print(f"{number}: {victim}, at step {campaign.reached:,}", flush=True)
    campaign.end()
    ours = losses(run)
    print(
        f"{sum(campaign.killed.values())} kills {dict(campaign.killed)} in {time.monotonic() - began:.0f} s, "
        f"{len(ours):,} steps, {len(campaign.verified):,} checkpoints verified in the bucket"
    )
    assert [events(run, name) for name in ("damaged", "unchanged", "custody damaged", "fetch failed")] == [[]] * 4
    assert len(events(run, "fetched")) == campaign.killed["node"]
    assert len(events(run, "vanished")) <= campaign.killed["node"]
    assert list(bucket.told(run)) == []
    straight = new_run(*ENDLESS, "storage.save_every=1000000", ranks=RANKS)
    assert ours == undisturbed(nursery, straight, max(ours))


def undisturbed(nursery: Nursery, run: RunFolder, steps: int) -> dict[int, float]:
    """The losses of a run's first steps, when nothing happens to it."""
    ranks = nursery.start(run, RANKS)
    ranks.until(partial(_has_come_to, run, steps), seconds=120 + steps / 2)
    ranks.kill()
    return {step: loss for step, loss in losses(run).items() if step <= steps}


def _has_come_to(run: RunFolder, steps: int) -> bool:
    time.sleep(0.5)
    return any(record["step"] >= steps for record in read_lines(run.metrics))
