"""Every strategy trains to the numbers of one rank, and goes on in itself to the last bit and in any other.

Of the thorough cases every other one goes on with what a single rank saved, and a single rank with what the rest saved;
both ways for all, with `AIFTRAIN_FULL_MATRIX=1`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from aiftrain.run.folder import RunFolder
from tests.conftest import FULL_MATRIX
from tests.ranks.comparing import states
from tests.ranks.conftest import Nursery, losses

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]
Trained = Callable[[int, str, str], RunFolder]
Numbers = Mapping[Any, float]

STEPS, MIDDLE = 8, 5
OPTIONS = (f"train.steps={STEPS}", "train.evaluate_every=4", "model.qk_norm=true")
SAVES_ALL = ("storage.save_every=1", "storage.keep_every=1")
EXPERTS = "{num_experts: 4, experts_per_token: 2, expert_intermediate_size: 32, shared_intermediate_size: 16}"
MODELS = {
    "dense": (),
    "tied": ("model.tie_embeddings=true",),
    "moe": (f"model.moe={EXPERTS}",),
    "biased moe": (f"model.moe={EXPERTS}", "model.mlp_bias=true"),
    "full moe": (f"model.moe={EXPERTS[:-1]}, capacity_factor: 1.0}}",),  # experts that leave tokens behind
}

# (ranks, strategy, model), each once: what is slow to try again and again is marked so.
FAST = [
    (2, "tp", "dense"),
    (4, "tp parallelism.zero_stage=3", "moe"),
    (4, "sp parallelism.zero_stage=3", "moe"),
    (4, "ep parallelism.zero_stage=2", "biased moe"),
    (2, "pp model.num_layers=5", "tied"),
]
THOROUGH = [
    (2, "zero1", "dense"),
    (2, "zero2", "moe"),
    (4, "zero3", "dense"),
    (2, "tp parallelism.zero_stage=0", "tied"),
    (4, "tp", "moe"),
    (4, "tp parallelism.zero_stage=0", "moe"),
    (4, "tp parallelism.zero_stage=2", "dense"),
    (4, "tp parallelism.tensor=4 model.num_kv_heads=4", "dense"),
    (4, "hpz", "dense"),
    (4, "mics", "moe"),
    (2, "offload", "dense"),
    (4, "offload parallelism.zero_stage=1", "moe"),
    (2, "offload3", "dense"),
    (4, "ep parallelism.zero_stage=0", "moe"),
    (4, "ep parallelism.zero_stage=3", "biased moe"),
    (4, "ep parallelism.expert=4 parallelism.sequence=2 parallelism.zero_stage=2", "full moe"),
    (4, "ep parallelism.tensor=2", "biased moe"),
    (4, "ep parallelism.pipeline=2", "full moe"),
    (4, "sp parallelism.sequence=4 parallelism.zero_stage=0", "tied"),
    (4, "sp parallelism.tensor=2 parallelism.zero_stage=2", "moe"),
    (2, "pp", "moe"),
    (3, "pp parallelism.pipeline=3 parallelism.zero_stage=0 model.num_layers=5 train.micro_batch=4", "tied"),
    (4, "pp parallelism.zero_stage=0", "dense"),
    (4, "pp parallelism.pipeline=4 model.num_layers=5", "moe"),
    (4, "3d", "moe"),
    (4, "3d parallelism.zero_stage=0", "tied"),
    (4, "pp parallelism.sequence=2", "moe"),
]
SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in THOROUGH]
CASES = [*FAST, *SLOW]
EVERY = 1 if FULL_MATRIX else 2


def options(strategy: str, model: str) -> list[str]:
    return [f"parallelism={strategy.split()[0]}", *strategy.split()[1:], *OPTIONS, *MODELS[model]]


@pytest.fixture(scope="session")
def trained(nursery: Nursery, new_run: NewRun) -> Trained:
    """A run to its end, trained once and looked at by several tests."""
    done: dict[tuple[int, str, str], RunFolder] = {}

    def train(ranks: int, strategy: str, model: str) -> RunFolder:
        case = (ranks, strategy, model)
        if case not in done:
            done[case] = new_run(*options(strategy, model), *SAVES_ALL, ranks=ranks)
            started = nursery.start(done[case], ranks)
            assert started.wait() == [0] * ranks, started.log()
        return done[case]

    return train


def alone(trained: Trained, strategy: str, model: str) -> RunFolder:
    """The same model on a single rank."""
    return trained(1, on_one_rank(strategy), model)


def on_one_rank(strategy: str) -> str:
    return " ".join(["ddp", *(word for word in strategy.split() if word.startswith("model."))])


def farthest(ours: Numbers, theirs: Numbers) -> float:
    """The largest difference between two values, relative to theirs."""
    assert ours.keys() == theirs.keys()
    return max(abs(ours[key] / theirs[key] - 1) for key in ours)


def most_apart(one: RunFolder, other: RunFolder, state: str, step: int) -> float:
    """The largest difference of any parameter's state, relative to its norm."""
    ours, theirs = states(one, step), states(other, step)
    assert ours.keys() == theirs.keys()
    names = [name for name in ours if name.startswith(f"{state}/")]
    return max(float(np.linalg.norm(ours[name] - theirs[name]) / np.linalg.norm(theirs[name])) for name in names)


@pytest.mark.parametrize(("ranks", "strategy", "model"), CASES)
def test_equals_one_rank(trained: Trained, ranks: int, strategy: str, model: str) -> None:
    """All losses, the first gradients (after one step exp_avg is (1 - beta1) of them), the last weights."""
    single, together = alone(trained, strategy, model), trained(ranks, strategy, model)
    for key in ("loss", "grad_norm"):
        assert losses(together, key).keys() == set(range(1, STEPS + 1))
        assert farthest(losses(together, key), losses(single, key)) < 1e-5
    ours, theirs = losses(together, "validation"), losses(single, "validation")
    assert ours.keys() == theirs.keys() == {4, 8}
    assert max(farthest(ours[step], theirs[step]) for step in ours) < 1e-5
    assert most_apart(together, single, "exp_avg", 1) < 1e-5
    assert most_apart(together, single, "weight", STEPS) < 1e-4


@pytest.mark.parametrize(("ranks", "strategy", "model"), CASES)
def test_goes_on_to_the_last_bit(
    nursery: Nursery, new_run: NewRun, trained: Trained, ranks: int, strategy: str, model: str
) -> None:
    straight, again = trained(ranks, strategy, model), new_run(*options(strategy, model), ranks=ranks)
    go_on(nursery, straight, again, ranks)
    assert losses(again) == {step: loss for step, loss in losses(straight).items() if step > MIDDLE}
    ours, theirs = states(again), states(straight)
    assert [name for name in ours if not np.array_equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize(("ranks", "strategy", "model"), [*FAST, *SLOW[::EVERY]])
def test_goes_on_with_what_a_single_rank_saved(
    nursery: Nursery, new_run: NewRun, trained: Trained, ranks: int, strategy: str, model: str
) -> None:
    single, moved = alone(trained, strategy, model), new_run(*options(strategy, model), ranks=ranks)
    go_on(nursery, single, moved, ranks)
    assert farthest(losses(moved), {step: loss for step, loss in losses(single).items() if step > MIDDLE}) < 1e-5


@pytest.mark.parametrize(("ranks", "strategy", "model"), [*FAST, *SLOW[EVERY - 1 :: EVERY]])
def test_a_single_rank_goes_on_with_what_it_saved(
    nursery: Nursery, new_run: NewRun, trained: Trained, ranks: int, strategy: str, model: str
) -> None:
    single, together = alone(trained, strategy, model), trained(ranks, strategy, model)
    moved = new_run(*options(on_one_rank(strategy), model), ranks=1)
    go_on(nursery, together, moved, 1)
    assert farthest(losses(moved), {step: loss for step, loss in losses(single).items() if step > MIDDLE}) < 1e-5


def go_on(nursery: Nursery, source: RunFolder, target: RunFolder, ranks: int) -> None:
    """Train `target` to its end from the middle of `source`."""
    go_on_from(nursery, source, MIDDLE, target, ranks)


def go_on_from(nursery: Nursery, source: RunFolder, step: int, target: RunFolder, ranks: int) -> None:
    """Train `target` to its end from a checkpoint of `source`."""
    name = f"step-{step:08d}"
    shutil.copytree(source.checkpoints / name, target.checkpoints / name)
    started = nursery.start(target, ranks)
    assert started.wait() == [0] * ranks, started.log()
