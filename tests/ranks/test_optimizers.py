"""Optimizers other than AdamW, and the average of weights: every stage as one rank, resumed in place and elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from aiftrain.run.folder import RunFolder
from tests.ranks.comparing import assert_close, assert_same, states
from tests.ranks.conftest import Nursery, losses

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]

AVERAGED = ("optimizer.ema_decay=0.8", "train.evaluate_average=true", "storage.save_every=10")
EXPERTS = "{num_experts: 4, experts_per_token: 2, expert_intermediate_size: 32, dense_layers: 1}"
OPTIMIZERS = {
    "ademamix": (
        "optimizer=ademamix",
        "optimizer.grad_clip=1",
        "optimizer.ademamix.alpha_steps=10",
        "optimizer.ademamix.beta3_steps=15",
        *AVERAGED,
    ),
    "muon": ("optimizer=muon", "optimizer.lr=3e-3", f"model.moe={EXPERTS}", *AVERAGED),
}


@pytest.fixture(scope="module", params=OPTIMIZERS)
def alone(request: pytest.FixtureRequest, nursery: Nursery, new_run: NewRun) -> tuple[str, RunFolder]:
    """One rank, no ZeRO: what every other layout must equal."""
    name: str = request.param
    folder = new_run("parallelism=ddp", *OPTIMIZERS[name], ranks=1)
    assert nursery.start(folder, 1).wait() == [0]
    return name, folder


@pytest.mark.parametrize("strategy", ["ddp", "zero1", "zero2", "zero3"])
def test_a_killed_run_goes_on_as_if_nothing_was_and_equals_one_rank(
    nursery: Nursery, new_run: NewRun, alone: tuple[str, RunFolder], strategy: str
) -> None:
    name, one_rank = alone
    straight, broken = (new_run(f"parallelism={strategy}", *OPTIMIZERS[name]) for _ in range(2))
    ranks = nursery.start(broken, 2)
    ranks.until_saved()
    ranks.kill()
    assert nursery.start(straight, 2).wait() == [0, 0]
    assert nursery.start(broken, 2).wait() == [0, 0]
    assert_same(straight, broken)
    assert_close(straight, one_rank)


def test_it_goes_on_with_another_stage_and_number_of_ranks(
    nursery: Nursery, new_run: NewRun, alone: tuple[str, RunFolder]
) -> None:
    name, one_rank = alone
    for strategy, ranks in [("zero3", 2), ("zero1", 4)]:
        moved = new_run(f"parallelism={strategy}", *OPTIMIZERS[name], ranks=ranks)
        shutil.copytree(one_rank.checkpoints / "step-00000010", moved.checkpoints / "step-00000010")
        assert nursery.start(moved, ranks).wait() == [0] * ranks
        assert set(losses(moved)) == set(range(11, 21))
        assert_close(moved, one_rank)


def test_the_average_lags_behind_and_another_optimizer_is_refused(
    nursery: Nursery, new_run: NewRun, alone: tuple[str, RunFolder]
) -> None:
    name, one_rank = alone
    model = [option for option in OPTIMIZERS[name] if option.startswith("model.")]
    assert {key.partition("/")[0] for key in states(one_rank)} >= {"weight", "ema"}
    last = (losses(one_rank, key)[20] for key in ("validation", "validation_average"))
    assert all(averaged > plain for plain, averaged in zip(*(loss.values() for loss in last), strict=True))
    other = new_run("optimizer=adamw", *AVERAGED, *model, ranks=1)
    shutil.copytree(one_rank.checkpoints, other.checkpoints)
    ranks = nursery.start(other, 1)
    assert ranks.wait() == [2]
    assert "another optimizer" in ranks.message() and name in ranks.message()
