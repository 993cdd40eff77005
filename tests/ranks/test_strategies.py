"""Every strategy trains to the numbers of one rank, and resumes to the last bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import Nursery, losses
from tests.ranks.test_resume import weights

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]

STEPS = 30
LENGTH = (f"train.steps={STEPS}", "storage.save_every=1", "storage.keep_last=1", f"storage.keep_every={STEPS - 1}")
COMPARED = ("optimizer.grad_clip=0", "train.steps=30", "storage.keep_every=29")
MOE = "model.moe={num_experts: 4, experts_per_token: 2, expert_intermediate_size: 32, shared_intermediate_size: 16}"


@pytest.fixture(scope="session")
def one_rank(nursery: Nursery, new_run: NewRun) -> Callable[..., RunFolder]:
    """The same run on a single rank, trained once for each set of options."""
    done: dict[tuple[str, ...], RunFolder] = {}

    def trained(*options: str) -> RunFolder:
        if options not in done:
            done[options] = new_run("parallelism=ddp", *options, ranks=1)
            assert nursery.start(done[options], 1).wait() == [0]
        return done[options]

    return trained


@pytest.mark.parametrize(
    ("ranks", "strategy"),
    [
        (2, "parallelism=tp"),
        (4, "parallelism=tp"),
        (2, "parallelism=tp parallelism.zero_stage=0"),
        (4, "parallelism=tp parallelism.zero_stage=0"),
        (4, "parallelism=tp parallelism.zero_stage=3"),
    ],
)
@pytest.mark.parametrize("model", ["dense", "moe"])
def test_equals_one_rank(
    nursery: Nursery, new_run: NewRun, one_rank: Callable[..., RunFolder], ranks: int, strategy: str, model: str
) -> None:
    options = ("train.steps=30", "storage.save_every=30", "model.qk_norm=true", *([MOE] if model == "moe" else []))
    alone, together = one_rank(*options), new_run(*strategy.split(), *options, ranks=ranks)
    started = nursery.start(together, ranks)
    assert started.wait() == [0] * ranks, started.log()
    ours, theirs = losses(together), losses(alone)
    assert ours.keys() == theirs.keys() == set(range(1, 31))
    assert max(abs(ours[step] / theirs[step] - 1) for step in ours) < 1e-5
    here, there = weights(together), weights(alone)
    assert here.keys() == there.keys()
    for name in (name for name in here if name.startswith("weight/")):
        assert np.abs(here[name] - there[name]).max() < 1e-4 * np.abs(there[name]).max(), name
