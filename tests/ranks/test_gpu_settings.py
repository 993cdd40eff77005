"""deepspeed.json as a GPU gets it, on real CPU ranks: bf16 weights with fp32 masters, sums that overlap."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

import pytest

from aiftrain.plan.engine_config import HALF_WEIGHTS
from aiftrain.run.folder import RunFolder
from tests.conftest import FULL_MATRIX
from tests.ranks.comparing import assert_same
from tests.ranks.conftest import Nursery, losses
from tests.ranks.test_fp16 import words_of_model
from tests.ranks.test_strategies import MODELS, farthest

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]

SHORT = ("train.steps=8", "storage.save_every=8")
FAST = [(2, "zero1", "tied"), (2, "zero2", "dense"), (4, "pp parallelism.expert=2", "moe")]
THOROUGH = [
    (2, "zero3", "tied"),
    (4, "3d", "tied"),
    (4, "ep parallelism.tensor=2", "biased moe"),
    (4, "zero1 optimizer=muon", "tied"),
    (2, "offload3", "dense"),
]
REST = [
    (2, "zero1", "full moe"),
    (4, "hpz", "dense"),
    (4, "mics", "dense"),
    (2, "offload", "dense"),
    (2, "tp", "dense"),
    (4, "tp parallelism.zero_stage=3", "tied"),
    (2, "sp", "dense"),
    (2, "pp", "tied"),
    (2, "ep", "moe"),
    (4, "ep parallelism.zero_stage=2", "biased moe"),
    (2, "ep parallelism.zero_stage=3", "moe"),
    (4, "ep parallelism.tensor=2", "moe"),
    (4, "tp", "moe"),
    (4, "sp parallelism.expert=2", "moe"),
    (2, "zero2 optimizer=ademamix", "dense"),
    (4, "tp parallelism.sequence=2", "tied"),
    (4, "pp parallelism.sequence=2", "tied"),
    (2, "pp", "full moe"),
]
SLOW = [*THOROUGH, *REST] if FULL_MATRIX else THOROUGH
CASES = [*FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
KILLED = [(4, "ep parallelism.tensor=2", "biased moe"), (4, "3d", "tied")]
KILLED_TOO = [(2, "tp", "tied"), (2, "sp", "dense"), (4, "mics", "dense"), (4, "pp parallelism.expert=2", "moe")]


def as_on_a_gpu(folder: RunFolder) -> RunFolder:
    config = json.loads(folder.deepspeed_json.read_text(encoding="utf-8")) | HALF_WEIGHTS["bf16"]
    config["zero_optimization"]["overlap_comm"] = folder.read_spec().parallelism.pipeline == 1
    folder.write_json(folder.deepspeed_json, config)
    return folder


@pytest.fixture(scope="module")
def in_fp32(nursery: Nursery, new_run: NewRun) -> Callable[..., RunFolder]:
    """One rank in fp32, once for each model."""

    @cache
    def train(*words: str) -> RunFolder:
        folder = new_run(*SHORT, "parallelism=ddp", *words, ranks=1)
        assert nursery.start(folder, 1).wait() == [0]
        return folder

    return train


@pytest.mark.parametrize(("ranks", "strategy", "model"), CASES)
def test_bf16_weights_follow_fp32(
    nursery: Nursery, new_run: NewRun, in_fp32: Callable[..., RunFolder], ranks: int, strategy: str, model: str
) -> None:
    """As near as bf16 tells. Gradients that are missed or counted twice are far from it."""
    words = (*strategy.split()[1:], *MODELS[model])
    given = (*SHORT, "train.precision=bf16", f"parallelism={strategy.split()[0]}", *words)
    folder, single = as_on_a_gpu(new_run(*given, ranks=ranks)), in_fp32(*words_of_model(words))
    started = nursery.start(folder, ranks)
    assert started.wait() == [0] * ranks, started.log()
    assert farthest(losses(folder), losses(single)) < 5e-3
    assert farthest(losses(folder, "grad_norm"), losses(single, "grad_norm")) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "strategy", "model"), [*KILLED, *KILLED_TOO] if FULL_MATRIX else KILLED)
def test_a_kill_costs_no_bit(nursery: Nursery, new_run: NewRun, ranks: int, strategy: str, model: str) -> None:
    """The average of the weights as well, in which the validation is done."""
    words = (f"parallelism={strategy.split()[0]}", *strategy.split()[1:], *MODELS[model])
    given = ("train.precision=bf16", "train.steps=12", "storage.save_every=3", "train.evaluate_every=4")
    averaged = ("optimizer.ema_decay=0.8", "train.evaluate_average=true")
    straight, broken = (as_on_a_gpu(new_run(*given, *averaged, *words, ranks=ranks)) for _ in range(2))
    assert nursery.start(straight, ranks).wait() == [0] * ranks
    killed = nursery.start(broken, ranks)
    killed.until_saved()
    killed.kill()
    resumed = nursery.start(broken, ranks)
    assert resumed.wait() == [0] * ranks, resumed.log()
    assert_same(straight, broken)
    for key in ("validation", "validation_average"):
        assert losses(straight, key) == losses(broken, key)
