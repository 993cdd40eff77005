"""A rank or a writer killed at random moments of saves: what is a checkpoint is whole, and the numbers stay the same.

AIFTRAIN_KILLS is how many kills (8 by default).
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial

import pytest

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import Nursery, events, losses

pytestmark = [pytest.mark.ranks, pytest.mark.slow]
KILLS = int(os.environ.get("AIFTRAIN_KILLS", "8"))
STEPS = 40 + 12 * KILLS
STRAIGHT = ("train.evaluate_every=0", f"train.steps={STEPS}")
SAVES = ("storage.save_every=1", "storage.keep_last=2")


@pytest.mark.timeout(120 + 20 * KILLS)
def test_whoever_dies_in_a_save_no_checkpoint_is_lost(nursery: Nursery, new_run: Callable[..., RunFolder]) -> None:
    straight, folder = new_run(f"storage.save_every={STEPS}", *STRAIGHT), new_run(*SAVES, *STRAIGHT)
    assert nursery.start(straight, 2).wait() == [0, 0]
    catalog, chance, reached = Catalog(folder.checkpoints), random.Random(KILLS), 0
    for number in range(KILLS):
        ranks = nursery.start(folder, 2)
        ranks.until_saved()
        time.sleep(chance.uniform(0, 0.15))
        if number % 2:
            os.kill(chance.choice(ranks.writers()), signal.SIGKILL)
            ranks.until(partial(_writes_again, folder, ranks.attempt))
        os.kill(chance.choice(ranks.pids), signal.SIGKILL)
        time.sleep(chance.uniform(0, 0.05))
        ranks.kill()
        newest = catalog.latest()
        step = newest.step if newest else 0
        assert step >= reached, ranks.log()
        assert newest is None or catalog.verify(step) == []
        reached = step
    assert nursery.start(folder, 2).wait() == [0, 0]
    assert 0 < reached < STEPS, "every kill must fall into the run"
    assert [events(folder, name) for name in ("damaged", "unchanged", "vanished", "custody damaged")] == [[]] * 4
    assert losses(folder) == losses(straight)


def _writes_again(folder: RunFolder, attempt: int) -> bool:
    return any(event["attempt"] == attempt for event in events(folder, "writer restarted"))
