"""A pipeline over its life: resumed in other layouts, stopped, killed; what a stage holds and hands on."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable

import pytest

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import Nursery, losses
from tests.ranks.test_resume import assert_same

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]

PP = ("parallelism=pp", "model.num_layers=3", "model.tie_embeddings=true", "train.micro_batch=1")


@pytest.fixture(scope="module")
def straight(nursery: Nursery, new_run: NewRun) -> RunFolder:
    folder = new_run(*PP, "storage.keep_last=10")
    started = nursery.start(folder, 2)
    assert started.wait() == [0, 0], started.log()
    return folder


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
