"""A pipeline over its life: killed, stopped, resumed in its own layout and in others; what it holds and hands on."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable

import numpy as np
import pytest

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import Nursery, events, losses
from tests.ranks.test_resume import assert_same, weights

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]

PP = ("parallelism=pp", "model.num_layers=3", "model.tie_embeddings=true", "train.micro_batch=1")
MOE = "model.moe={num_experts: 4, experts_per_token: 2, expert_intermediate_size: 32, shared_intermediate_size: 16}"


@pytest.fixture(scope="module")
def straight(nursery: Nursery, new_run: NewRun) -> RunFolder:
    folder = new_run(*PP, "storage.keep_last=10")
    started = nursery.start(folder, 2)
    assert started.wait() == [0, 0], started.log()
    return folder


def test_killed_and_resumed_equals_straight_to_the_last_bit(
    nursery: Nursery, new_run: NewRun, straight: RunFolder
) -> None:
    broken = new_run(*PP, "storage.keep_last=10")
    ranks = nursery.start(broken, 2)
    ranks.until(lambda: 13 in losses(broken))
    ranks.kill()
    resumed = nursery.start(broken, 2)
    assert resumed.wait() == [0, 0], resumed.log()
    assert [event["step"] for event in events(broken, "resume")] == [10]
    assert_same(straight, broken)


@pytest.mark.parametrize(
    ("layout", "ranks"),
    [
        ("parallelism=zero3", 2),
        ("parallelism=3d", 4),
        ("parallelism=ddp", 1),
        ("parallelism=pp parallelism.pipeline=3 parallelism.zero_stage=0", 3),
    ],
)
def test_any_other_layout_goes_on(
    nursery: Nursery, new_run: NewRun, straight: RunFolder, layout: str, ranks: int
) -> None:
    moved = new_run(*PP, *layout.split(), ranks=ranks)
    shutil.copytree(straight.checkpoints / "step-00000010", moved.checkpoints / "step-00000010")
    started = nursery.start(moved, ranks)
    assert started.wait() == [0] * ranks, started.log()
    here, there = losses(straight), losses(moved)
    assert set(there) == set(range(11, 21))
    assert max(abs(there[step] - here[step]) / here[step] for step in there) < 1e-5


def test_a_pipeline_takes_over_from_another_layout(nursery: Nursery, new_run: NewRun) -> None:
    first = new_run(*PP, "parallelism=zero3", "storage.keep_last=10")
    assert nursery.start(first, 2).wait() == [0, 0]
    moved = new_run(*PP)
    shutil.copytree(first.checkpoints / "step-00000010", moved.checkpoints / "step-00000010")
    started = nursery.start(moved, 2)
    assert started.wait() == [0, 0], started.log()
    here, there = losses(first), losses(moved)
    assert max(abs(there[step] - here[step]) / here[step] for step in there) < 1e-5


@pytest.mark.parametrize("strategy", ["parallelism=pp", "parallelism=3d"])
def test_gradients_of_the_first_step_are_those_of_one_rank(nursery: Nursery, new_run: NewRun, strategy: str) -> None:
    """After one step from nothing Adam's first moment is the gradient, but for a factor."""
    options = (*PP, MOE, "model.num_layers=5", "train.steps=1", "optimizer.grad_clip=0", "optimizer.warmup_steps=0")
    ranks = 4 if strategy.endswith("3d") else 2
    alone, together = new_run(*options, "parallelism=ddp", ranks=1), new_run(*options, strategy, ranks=ranks)
    assert nursery.start(alone, 1).wait() == [0]
    assert nursery.start(together, ranks).wait() == [0] * ranks
    here, there = weights(together), weights(alone)
    assert here.keys() == there.keys()
    for name in (name for name in here if name.startswith("exp_avg/")):
        assert np.abs(here[name] - there[name]).max() < 1e-5 * np.abs(there[name]).max(), name
    norms = losses(together, "grad_norm")[1], losses(alone, "grad_norm")[1]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_sigterm_to_one_stage_saves_and_ends_all(nursery: Nursery, new_run: NewRun, straight: RunFolder) -> None:
    stopped = new_run(*PP, "storage.keep_last=10")
    ranks = nursery.start(stopped, 2)
    ranks.until(lambda: 6 in losses(stopped))
    os.kill(ranks.pids[1], signal.SIGTERM)
    assert ranks.wait() == [75, 75]
    entry = Catalog(stopped.checkpoints).latest()
    assert entry is not None and entry.step == max(losses(stopped)) < 20
    assert nursery.start(stopped, 2).wait() == [0, 0]
    assert_same(straight, stopped)


def test_a_killed_stage_ends_all(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run(*PP, "train.steps=2000")
    ranks = nursery.start(folder, 2)
    ranks.until(lambda: 3 in losses(folder))
    os.kill(ranks.pids[1], signal.SIGKILL)
    codes = ranks.wait()
    assert codes[0] == 1 and codes[1] == -signal.SIGKILL, ranks.log()
