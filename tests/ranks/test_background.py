"""Saving beside the training: what is saved is the state after its step, whoever is late, dies or has no memory."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import numpy as np
import pytest

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.run.folder import RunFolder
from tests.ranks.comparing import states
from tests.ranks.conftest import Nursery, events, losses

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
        *(pytest.param(name, EMA, marks=pytest.mark.slow) for name in ("tp", "offload", "ddp", "zero2")),
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
