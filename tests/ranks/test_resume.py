"""Straight through against killed and resumed, to the last bit, for every ZeRO stage; what else a restart meets."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable

import pytest

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.run.folder import RunFolder
from tests.ranks.comparing import assert_same
from tests.ranks.conftest import Nursery, events, losses

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]
BF16_MASTERS = {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}  # deepspeed.json for a GPU


@pytest.mark.parametrize("strategy", ["ddp", "zero1", "zero2", "zero3"])
def test_killed_and_resumed_equals_straight_to_the_last_bit(nursery: Nursery, new_run: NewRun, strategy: str) -> None:
    options = (f"parallelism={strategy}", "train.steps=20")
    straight, broken = new_run(*options), new_run(*options)
    assert nursery.start(straight, 2).wait() == [0, 0]
    ranks = nursery.start(broken, 2)
    ranks.until_saved()
    ranks.kill()
    resumed = nursery.start(broken, 2)
    assert resumed.wait() == [0, 0], resumed.log()
    assert [event["step"] < 20 for event in events(broken, "resume")] == [True]
    assert_same(straight, broken)


@pytest.mark.parametrize(("strategy", "masters"), [("zero1", False), ("zero1", True), ("zero2", True), ("zero3", True)])
def test_bf16_resumes_to_the_last_bit(nursery: Nursery, new_run: NewRun, strategy: str, masters: bool) -> None:
    """By autocast, as on a CPU; and with bf16 weights and fp32 masters, as a GPU has it."""
    options = (f"parallelism={strategy}", "train.precision=bf16", "train.steps=12", "storage.save_every=3")
    straight, broken = new_run(*options), new_run(*options)
    for folder in (straight, broken) if masters else ():
        config = json.loads(folder.deepspeed_json.read_text(encoding="utf-8"))
        folder.write_json(folder.deepspeed_json, config | BF16_MASTERS)
    assert nursery.start(straight, 2).wait() == [0, 0]
    ranks = nursery.start(broken, 2)
    ranks.until_saved()
    ranks.kill()
    assert nursery.start(broken, 2).wait() == [0, 0]
    assert_same(straight, broken)


def test_sigterm_saves_and_leaves_with_75(nursery: Nursery, new_run: NewRun) -> None:
    straight, stopped = new_run(), new_run()
    assert nursery.start(straight, 2).wait() == [0, 0]
    ranks = nursery.start(stopped, 2)
    ranks.until(lambda: 6 in losses(stopped))
    ranks.signal(signal.SIGTERM)
    assert ranks.wait() == [75, 75]
    entry = Catalog(stopped.checkpoints).latest()
    assert entry is not None
    assert entry.step == max(losses(stopped)) < 20
    assert nursery.start(stopped, 2).wait() == [0, 0]
    assert_same(straight, stopped)


def test_one_signalled_rank_stops_all(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run()
    ranks = nursery.start(folder, 2)
    ranks.until(lambda: 3 in losses(folder))
    ranks.pids, other = ranks.pids[1:], ranks.pids[:1]
    ranks.signal(signal.SIGTERM)
    assert ranks.wait() + nursery.ask({"wait": other}) == [75, 75]


def test_another_number_of_ranks_and_another_strategy_go_on(nursery: Nursery, new_run: NewRun) -> None:
    straight = new_run("parallelism=zero1", "storage.keep_last=10")
    assert nursery.start(straight, 2).wait() == [0, 0]
    for strategy, ranks in [("zero3", 2), ("ddp", 1), ("zero2", 4)]:
        moved = new_run(f"parallelism={strategy}", ranks=ranks)
        shutil.copytree(straight.checkpoints / "step-00000010", moved.checkpoints / "step-00000010")
        assert nursery.start(moved, ranks).wait() == [0] * ranks
        here, there = losses(straight), losses(moved)
        assert set(there) == set(range(11, 21))
        assert max(abs(there[step] - here[step]) / here[step] for step in there) < 1e-5


def test_a_damaged_checkpoint_is_passed_over_and_kept_aside(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run("train.steps=10")
    assert nursery.start(folder, 2).wait() == [0, 0]
    before = losses(folder)
    shard = folder.checkpoints / "step-00000010" / "rank-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert nursery.start(folder, 2).wait() == [0, 0]
    (damaged,) = events(folder, "damaged")
    assert damaged["step"] == 10 and "rank-00001.safetensors" in damaged["message"]
    assert [event["step"] for event in events(folder, "resume")] == [5]
    assert losses(folder) == before
    assert (folder.checkpoints / "damaged-step-00000010").is_dir()


def test_a_checkpoint_of_another_model_is_refused(nursery: Nursery, new_run: NewRun) -> None:
    small = new_run("train.steps=5")
    assert nursery.start(small, 2).wait() == [0, 0]
    other = new_run("train.steps=5", "model.num_layers=1")
    shutil.copytree(small.checkpoints, other.checkpoints)
    ranks = nursery.start(other, 2)
    assert set(ranks.wait()) == {2}
    assert "another model" in ranks.message()
    assert (other.checkpoints / "step-00000005" / "manifest.json").is_file()
