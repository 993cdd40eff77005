"""Saving beside the training: what is saved is the state after its step, whoever is late, dies or has no memory."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.run.folder import RunFolder
from tests.ranks.comparing import states
from tests.ranks.conftest import Nursery, events, losses
from tests.rigs.small_disk import needs_root, small_disk

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]

ALL = ("train.steps=5", "storage.save_every=1", "storage.keep_last=5", "train.evaluate_every=1")
EMA = ("optimizer.ema_decay=0.9", "train.evaluate_average=true")
SKIPS = {"nan_loss": [2]}  # no update then, and the weights' average is swapped in while they may be copied


def different(one: RunFolder, other: RunFolder) -> list[str]:
    """What differs in checkpoints of the same steps."""
    steps = [entry.step for entry in Catalog(one.checkpoints).entries()]
    assert steps == [entry.step for entry in Catalog(other.checkpoints).entries()]
    both = ((step, states(one, step), states(other, step)) for step in steps)
    return [f"{step} {key}" for step, a, b in both for key in a | b if not np.array_equal(a[key], b[key])]


@pytest.mark.parametrize(
    ("strategy", "optimizer"),
    [
        ("ddp", ()),
        ("zero1", EMA),
        ("zero2", ()),
        ("zero3", EMA),
        ("pp", ()),
        *(pytest.param(name, EMA, marks=pytest.mark.slow) for name in ("tp", "offload")),
        *(pytest.param(name, ("optimizer=muon",), marks=pytest.mark.slow) for name in ("zero1", "zero3")),
    ],
)
def test_a_checkpoint_is_of_its_step_however_late_it_is_copied(
    nursery: Nursery, new_run: NewRun, strategy: str, optimizer: tuple[str, ...]
) -> None:
    options = (*ALL, *optimizer, f"parallelism={strategy}")
    blocking, beside = new_run(*options, "storage.background=false"), new_run(*options)
    for folder, program in ((blocking, "troubled"), (beside, "late_copy")):
        ranks = nursery.start(folder, 2, program=f"tests.ranks.{program}", TROUBLE=json.dumps(SKIPS))
        assert ranks.wait() == [0, 0], ranks.log()
    assert [event["step"] for event in events(beside, "saved")] == [1, 2, 4, 5]
    assert different(blocking, beside) == []
    assert losses(blocking) == losses(beside)
    assert losses(blocking, "validation_average") == losses(beside, "validation_average")


def test_a_killed_writer_is_started_again_and_the_checkpoint_is_whole(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run("train.steps=60", "storage.save_every=20")
    ranks = nursery.start(folder, 2)
    ranks.until(lambda: 1 in losses(folder) and len(ranks.writers()) == 2)
    os.kill(ranks.writers()[1], signal.SIGKILL)
    assert ranks.wait() == [0, 0], ranks.log()
    assert [(event["step"], event["times"]) for event in events(folder, "writer restarted")] == [(20, 1)]
    catalog = Catalog(folder.checkpoints)
    assert [(entry.step, catalog.verify(entry.step)) for entry in catalog.entries()] == [(40, []), (60, [])]
    assert [line.event for line in catalog.custody.lines()] == ["saved", "saved", "saved", "removed"]
    assert events(folder, "unchanged") == []


def test_weights_that_stay_as_they_are_raise_the_alarm(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run("train.steps=15", "storage.save_every=5", "optimizer.lr=1e-30", "optimizer.weight_decay=0")
    assert nursery.start(folder, 2).wait() == [0, 0]
    assert [(event["step"], event["since"]) for event in events(folder, "unchanged")] == [(10, 5), (15, 10)]


LIMIT = 3.0  # seconds, of a hang
SLOW = ("train.steps=30", "storage.save_every=5", "train.evaluate_every=0", f"train.hang_minutes={LIMIT / 60}")


def test_slow_storage_makes_training_wait_and_is_no_hang(nursery: Nursery, new_run: NewRun) -> None:
    straight, folder = new_run(*SLOW), new_run(*SLOW)
    assert nursery.start(straight, 2).wait() == [0, 0]
    ranks = nursery.start(folder, 2)
    ranks.until(lambda: 2 in losses(folder) and len(ranks.writers()) == 2)
    writer = ranks.writers()[1]
    os.kill(writer, signal.SIGSTOP)
    ranks.until(lambda: 9 in losses(folder))  # beside the save of step 5
    time.sleep(2 * LIMIT)
    assert max(losses(folder)) == 10, "the save of step 10 waits"
    os.kill(writer, signal.SIGCONT)
    assert ranks.wait() == [0, 0], ranks.log()
    assert events(folder, "hang") == []
    [waited] = [event for event in events(folder, "save waited") if event["seconds"] > LIMIT]
    assert waited["step"] == 10
    assert losses(folder) == losses(straight)
    assert different(straight, folder) == []


@needs_root
def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    nursery: Nursery, new_run: NewRun, tmp_path: Path
) -> None:
    """A checkpoint takes 1 MB here: with what others have there, two do not fit."""
    with small_disk(tmp_path / "disk", 3 << 20) as home:
        folder = new_run("train.steps=10", "storage.save_every=5", f"storage.path={home}")
        (home / "of-others").write_bytes(bytes(600_000))
        ranks = nursery.start(folder, 2)
        assert ranks.wait() == [1, 1]
        assert "no room for the next checkpoint" in ranks.message()
        catalog = Catalog(next(path for path in home.iterdir() if path.is_dir()))
        assert [(entry.step, catalog.verify(entry.step)) for entry in catalog.entries()] == [(5, [])]
        (home / "of-others").unlink()
        assert nursery.start(folder, 2).wait() == [0, 0]
        assert [event["step"] for event in events(folder, "resume")] == [5]
