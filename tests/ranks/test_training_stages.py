"""A batch that grows, another mixture, longer sequences with another RoPE base: on two ranks, and resumed anywhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aiftrain.run.folder import RunFolder
from tests.ranks.comparing import assert_same
from tests.ranks.conftest import Nursery, events, losses

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]
STAGES = [
    "recipe=staged",
    "~stages.mix.weights",
    "+stages.mix.weights={de: 0.9, fr: 0.1}",
    "stages.mix.from_step=20",
    "stages.long.from_step=40",
    "stages.long.sequence_length=128",
    "stages.long.micro_batch=1",
    "train.sequence_length=32",
    "stages.long.global_batch=4",
    "train.batch_warmup={start: 4, increment: 2, tokens: 2000}",
    "train.steps=60",
    "storage.save_every=5",
    "train.micro_batch=1",
]


@pytest.fixture(scope="module")
def straight(nursery: Nursery, new_run: NewRun) -> RunFolder:
    folder = new_run(*STAGES, "parallelism=zero2")
    ranks = nursery.start(folder, 2)
    assert ranks.wait() == [0, 0], ranks.log()
    return folder


def test_killed_in_every_stage_and_resumed_equals_straight_to_the_last_bit(
    nursery: Nursery, new_run: NewRun, straight: RunFolder
) -> None:
    """While the batch grows, a few steps behind the change of mixture, and among the long sequences."""
    broken = new_run(*STAGES, "parallelism=zero2", "storage.background=false")
    for step in (8, 22, 47):
        ranks = nursery.start(broken, 2)
        ranks.until(lambda at=step: at in losses(broken))  # type: ignore[misc]
        ranks.kill()
    assert nursery.start(broken, 2).wait() == [0, 0]
    resumed = [event["step"] for event in events(broken, "resume")]
    assert resumed[0] < 17 <= 20 <= resumed[1] < 40 <= resumed[2] < 60
    assert_same(straight, broken)


def test_stages_are_recorded_and_do_what_they_say(straight: RunFolder) -> None:
    phases = [(event["step"], event["stage"]) for event in events(straight, "phase")]
    assert phases == [(8, None), (14, None), (20, "mix"), (40, "long")]
    tokens, sources = losses(straight, "tokens"), losses(straight, "sources")
    assert tokens[8] == 8 * 4 * 32
    assert tokens[20] - tokens[19] == 8 * 32
    assert tokens[41] - tokens[40] == 4 * 128
    assert all(sum(sources[step].values()) == tokens[step] for step in tokens)
    read = {name: sources[40][name] - sources[20][name] for name in ("de", "fr")}
    assert read["de"] / sum(read.values()) == pytest.approx(0.9, abs=0.02)


def test_two_ranks_equal_one_through_all_stages(nursery: Nursery, new_run: NewRun, straight: RunFolder) -> None:
    alone = new_run(*STAGES, "parallelism=ddp", ranks=1)
    assert nursery.start(alone, 1).wait() == [0]
    ours, theirs = losses(straight), losses(alone)
    assert set(ours) == set(theirs) == set(range(1, 61))
    assert max(abs(ours[step] - theirs[step]) / theirs[step] for step in ours) < 1e-5


def test_a_run_changes_its_future_and_not_its_past(nursery: Nursery, new_run: NewRun) -> None:
    tiny = ["data.goldfish={one_in: 4, width: 5}", "train.evaluate_every=0"]
    folder = new_run(*tiny, "train.steps=10")
    assert nursery.start(folder, 2).wait() == [0, 0]
    mix = "weights: {de: 0.9, fr: 0.1}, rewarm: 3"
    new_run(*tiny, "train.steps=16", f"+stages.mix={{from_step: 10, {mix}}}", folder=folder.path)
    ranks = nursery.start(folder, 2)
    assert ranks.wait() == [0, 0], ranks.log()
    assert [event["keys"] for event in events(folder, "changed")] == [["stages"]]
    assert [event["step"] for event in events(folder, "resume")] == [10]
    assert losses(folder, "lr")[11] < losses(folder, "lr")[13] == pytest.approx(1e-3)
    new_run(*tiny, "train.steps=20", f"+stages.mix={{from_step: 9, {mix}}}", folder=folder.path)
    refused = nursery.start(folder, 2)
    assert refused.wait() == [2, 2]
    assert "another stages (stages.mix.from_step)" in refused.message()
