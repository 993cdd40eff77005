"""A pipeline over its life: resumed in other layouts, stopped, killed; what a stage holds and hands on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.shards import shard_name
from aiftrain.checkpoint.tensorfile import TensorFile
from aiftrain.plan.plan import make_plan
from aiftrain.run.folder import RunFolder
from tests.ranks.comparing import assert_same
from tests.ranks.conftest import Nursery, losses
from tests.ranks.test_resume import BF16_MASTERS

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]

PP = ("parallelism=pp", "model.num_layers=3", "model.tie_embeddings=true", "train.micro_batch=1")
AVERAGED = ("optimizer.ema_decay=0.8", "train.evaluate_average=true")


@pytest.fixture(scope="module")
def straight(nursery: Nursery, new_run: NewRun) -> RunFolder:
    folder = new_run(*PP, *AVERAGED, "storage.keep_last=10")
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
    moved = new_run(*PP, *AVERAGED, *layout.split(), ranks=ranks)
    shutil.copytree(straight.checkpoints / "step-00000010", moved.checkpoints / "step-00000010")
    started = nursery.start(moved, ranks)
    assert started.wait() == [0] * ranks, started.log()
    here, there = losses(straight), losses(moved)
    assert set(there) == set(range(11, 21))
    assert max(abs(there[step] - here[step]) / here[step] for step in there) < 1e-5
    averaged = (losses(folder, "validation_average")[20] for folder in (straight, moved))
    assert next(averaged) == pytest.approx(next(averaged), rel=1e-5)


@pytest.mark.parametrize(
    ("words", "ranks"),
    [
        ("parallelism.pipeline=2", 2),
        pytest.param("parallelism.pipeline=3", 3, marks=pytest.mark.slow),
        pytest.param("parallelism=3d parallelism.zero_stage=0", 4, marks=pytest.mark.slow),
        pytest.param("parallelism.pipeline=4 model.num_layers=4", 4, marks=pytest.mark.slow),
    ],
)
def test_no_stage_waits_for_another_in_a_circle(
    nursery: Nursery, new_run: NewRun, straight: RunFolder, words: str, ranks: int
) -> None:
    """Sends that end only when they are received, in training, evaluation and saving."""
    short = ("train.steps=10", "storage.save_every=10", "train.hang_minutes=1")
    folder = new_run(*PP, *AVERAGED, *short, *words.split(), ranks=ranks)
    started = nursery.start(folder, ranks, program="tests.ranks.waiting_sends")
    assert started.wait() == [0] * ranks, started.log()
    if folder.read_spec().model.num_layers == 3:
        assert losses(folder)[4] == pytest.approx(losses(straight)[4], rel=1e-5)


@pytest.mark.slow
def test_bf16_weights_with_fp32_masters(nursery: Nursery, new_run: NewRun) -> None:
    """As a GPU has it: what ranks of ZeRO 1 learn, as far as bf16 tells, and to the last bit after a kill."""
    options = (*PP, "train.precision=bf16", "train.steps=10", "storage.save_every=5")
    runs = [new_run(*options), new_run(*options), new_run(*options, "parallelism=zero1")]
    for folder in runs:
        config = json.loads(folder.deepspeed_json.read_text(encoding="utf-8"))
        folder.write_json(folder.deepspeed_json, config | BF16_MASTERS)
    straight, broken, other = runs
    for folder in (straight, other):
        started = nursery.start(folder, 2)
        assert started.wait() == [0, 0], started.log()
    ours, theirs = losses(straight), losses(other)
    assert max(abs(ours[step] / theirs[step] - 1) for step in ours) < 2e-3
    ranks = nursery.start(broken, 2)
    ranks.until_saved()
    ranks.kill()
    assert nursery.start(broken, 2).wait() == [0, 0]
    assert_same(straight, broken)


def test_sigterm_to_one_stage_saves_and_ends_all(nursery: Nursery, new_run: NewRun, straight: RunFolder) -> None:
    stopped = new_run(*PP, *AVERAGED, "storage.keep_last=10")
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


def test_what_is_handed_on_is_counted(nursery: Nursery, new_run: NewRun) -> None:
    """Either way the hidden states of eight micro-batches of one sequence, and the tied table once."""
    folder = new_run(*PP)
    started = nursery.start(folder, 2, program="tests.ranks.handed_on")
    assert started.wait() == [0, 0], started.log()
    model, length = folder.read_spec().model, folder.read_spec().train.sequence_length
    numbers = 8 * length * model.hidden_size + model.vocab_size * model.hidden_size
    sent = [json.loads((folder.path / f"sent-{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]
    assert sent == [4 * numbers] * 2


def test_a_rank_saves_its_own_stage_and_no_more(straight: RunFolder) -> None:
    layout = make_plan(straight.read_spec()).execution.layout
    held = [saved_names(straight.checkpoints / "step-00000010" / shard_name(rank)) for rank in range(2)]
    assert held[0].isdisjoint(held[1]) and "embed.weight" in held[0] and "norm.weight" in held[1]
    for stage in range(2):
        layers = {int(name.split(".")[1]) for name in held[stage] if name.startswith("layers.")}
        assert layers == set(layout.layers(stage, 3))


def saved_names(shard: Path) -> set[str]:
    """The parameters of which a shard has the weights."""
    return {key.partition("/")[2] for key in TensorFile.open(shard).tensors if key.startswith("weight/")}
