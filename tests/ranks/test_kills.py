"""Ranks killed at random moments, most of them while saving: no checkpoint is lost, and the numbers stay the same.

AIFTRAIN_KILLS is how many kills there are, for a campaign.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from functools import partial

import pytest

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.run.folder import RunFolder, read_lines
from tests.ranks.conftest import Nursery, events, losses

pytestmark = pytest.mark.ranks
KILLS = int(os.environ.get("AIFTRAIN_KILLS", "6"))
STEPS = 10 * KILLS
STRAIGHT = ("train.evaluate_every=0", f"train.steps={STEPS}")
SAVES_ALL_THE_TIME = ("storage.save_every=1", "storage.keep_last=2")


@pytest.mark.timeout(120 + 20 * KILLS)
def test_every_restart_goes_on_from_a_complete_checkpoint(nursery: Nursery, new_run: Callable[..., RunFolder]) -> None:
    straight, folder = new_run(f"storage.save_every={STEPS}", *STRAIGHT), new_run(*SAVES_ALL_THE_TIME, *STRAIGHT)
    assert nursery.start(straight, 2).wait() == [0, 0]
    catalog = Catalog(folder.checkpoints)
    chance = random.Random(KILLS)
    reached = 0
    for left in reversed(range(KILLS)):
        ranks = nursery.start(folder, 2)
        if not left:
            ranks.until_saved()  # where a busy machine has saved nothing so far
        elif chance.random() < 0.8:  # else anywhere in the start
            ranks.until(partial(_has_stepped, folder, ranks.attempt))
        time.sleep(chance.uniform(0, 0.25))
        ranks.kill()
        entry = catalog.latest()
        step = entry.step if entry else 0
        assert step >= reached
        assert entry is None or catalog.verify(step) == []
        reached = step
    assert nursery.start(folder, 2).wait() == [0, 0]
    assert 0 < reached < STEPS, "every kill must fall into the run"
    assert events(folder, "resume")[-1]["step"] == reached
    assert events(folder, "damaged") == []
    assert losses(folder) == losses(straight)


def _has_stepped(folder: RunFolder, attempt: int) -> bool:
    return any(record["attempt"] == attempt for record in read_lines(folder.metrics))
