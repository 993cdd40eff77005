"""fp16 with scaled losses on real ranks: near fp32's numbers, steps that overflow, and to the last bit after a kill."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

import pytest

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.loss_scale import LossScale
from aiftrain.plan.engine_config import HALF_WEIGHTS
from aiftrain.run.folder import RunFolder
from tests.ranks.comparing import assert_same, states
from tests.ranks.conftest import Nursery, Ranks, events, losses
from tests.ranks.test_strategies import MODELS, farthest

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]

FP16 = ("train.precision=fp16", "train.steps=10", "storage.save_every=5", "train.loss_scale.window=3")
SMALL = (*FP16, "train.loss_scale.initial=1024")  # nothing overflows
# Far more than fp16 bears at first, so that some steps overflow; then it grows until one does again.
TOO_MUCH = ("train.loss_scale.initial=16_777_216", "train.loss_scale.hysteresis=1", "train.steps=16")


def start(nursery: Nursery, folder: RunFolder, ranks: int = 2) -> Ranks:
    return nursery.start(folder, ranks, program="tests.ranks.fp16_here")


def words_of_model(words: tuple[str, ...]) -> list[str]:
    return [word for word in words if word.startswith(("model.", "optimizer="))]


def as_on_a_gpu(folder: RunFolder) -> RunFolder:
    """With fp16 weights and fp32 masters."""
    config = json.loads(folder.deepspeed_json.read_text(encoding="utf-8"))
    folder.write_json(folder.deepspeed_json, config | HALF_WEIGHTS["fp16"])
    return folder


@pytest.fixture(scope="module")
def in_fp32(nursery: Nursery, new_run: NewRun) -> Callable[..., RunFolder]:
    """One rank in fp32, once for each model and optimizer."""

    @cache
    def train(*words: str) -> RunFolder:
        folder = new_run(*SMALL, "train.precision=fp32", "parallelism=ddp", *words, ranks=1)
        assert start(nursery, folder, 1).wait() == [0]
        return folder

    return train


@pytest.mark.parametrize(
    ("ranks", "strategy", "model"),
    [
        (2, "zero1", "dense"),
        (2, "zero3", "dense"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (2, "zero2 optimizer=muon", "dense"),
                (2, "offload", "dense"),
                (2, "offload3", "dense"),
                (4, "hpz", "dense"),
                (4, "mics", "dense"),
                (2, "tp", "dense"),
                (2, "sp parallelism.zero_stage=3", "dense"),
                (2, "pp", "tied"),
                (4, "3d", "tied"),
                (2, "ep parallelism.zero_stage=2", "moe"),
            )
        ),
    ],
)
def test_fp16_weights_follow_fp32(
    nursery: Nursery, new_run: NewRun, in_fp32: Callable[..., RunFolder], ranks: int, strategy: str, model: str
) -> None:
    """Losses, and gradient norms, which the scale would be seen in, also where it doubles: in steps 3, 6 and 9."""
    words = (*strategy.split()[1:], *MODELS[model])
    folder = as_on_a_gpu(new_run(*SMALL, f"parallelism={strategy.split()[0]}", *words, ranks=ranks))
    single = in_fp32(*words_of_model(words))
    ran = start(nursery, folder, ranks)
    assert ran.wait() == [0] * ranks, ran.log()
    assert [losses(folder, "loss_scale")[step] for step in (2, 3, 6, 9)] == [1024, 2048, 4096, 8192]
    assert farthest(losses(folder), losses(single)) < 2e-4
    assert farthest(losses(folder, "grad_norm"), losses(single, "grad_norm")) < 3e-3
    assert losses(single, "loss_scale") == {}


def test_products_in_fp16_on_fp32_weights_follow_fp32(
    nursery: Nursery, new_run: NewRun, in_fp32: Callable[..., RunFolder]
) -> None:
    """By autocast: without ZeRO, where aiftrain scales and not DeepSpeed."""
    folder, single = new_run(*SMALL, "parallelism=ddp"), in_fp32()
    assert nursery.start(folder, 2).wait() == [0, 0]
    assert losses(folder, "loss_scale")[10] == 8192
    assert farthest(losses(folder), losses(single)) < 1e-4
    assert farthest(losses(folder, "grad_norm"), losses(single, "grad_norm")) < 1e-3


@pytest.mark.parametrize(
    ("strategy", "masters"),
    [
        ("zero2", True),
        ("offload", True),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("ddp", False), ("zero1", True), ("zero3", True))),
    ],
)
def test_overflows_cost_their_steps_alone_and_a_kill_no_bit(
    nursery: Nursery, new_run: NewRun, strategy: str, masters: bool
) -> None:
    straight, broken = (new_run(*FP16, *TOO_MUCH, f"parallelism={strategy}") for _ in range(2))
    for folder in (straight, broken) if masters else ():
        as_on_a_gpu(folder)
    assert start(nursery, straight).wait() == [0, 0]
    ranks = start(nursery, broken)
    ranks.until(lambda: 12 in losses(broken))
    ranks.kill()
    assert start(nursery, broken).wait() == [0, 0]
    assert_same(straight, broken)
    for key in ("loss_scale", "overflow", "lr"):
        assert losses(straight, key) == losses(broken, key)

    overflows = [event["step"] for event in events(straight, "overflow")]
    assert overflows[0] == 1 and overflows[-1] > 5, "not at the beginning alone"
    assert overflows == [step for step, norm in losses(straight, "grad_norm").items() if norm is None]
    assert overflows == list(losses(straight, "overflow"))
    assert len(overflows) < 10, "DeepSpeed drops the gradients of a step that overflows"
    assert not events(straight, "skip"), "no trouble in the guard's eyes"
    manifest = Catalog(straight.checkpoints).find(None).manifest
    assert manifest.optimizer_step == 16 - len(overflows)
    assert manifest.guard is not None and manifest.guard.skipped == 0
    assert manifest.loss_scale is not None and manifest.loss_scale.factor == losses(straight, "loss_scale")[16]


def test_an_overflow_changes_no_bit_and_the_scale_goes_into_another_layout(nursery: Nursery, new_run: NewRun) -> None:
    one = new_run(*FP16, *TOO_MUCH, "train.steps=1", "parallelism=zero1", ranks=1)
    assert start(nursery, as_on_a_gpu(one), 1).wait() == [0]
    before = states(one)
    assert losses(one, "overflow") == {1: True}
    two = new_run(*FP16, *TOO_MUCH, "train.steps=2", "parallelism=zero2", folder=one.path, ranks=2)
    assert start(nursery, as_on_a_gpu(two)).wait() == [0, 0]
    assert losses(two, "overflow") == {1: True, 2: True}
    after = states(two)
    assert all((before[name] == after[name]).all() for name in before)
    scale = Catalog(two.checkpoints).find(None).manifest.loss_scale
    assert scale == LossScale(factor=2.0**22, patience=1)
