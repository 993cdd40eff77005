"""Trouble on purpose, on real ranks: poisoned data, NaN on one rank, kills in between. The numbers stay exact."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.signing.keys import new_signing_key
from aiftrain.run.folder import RunFolder, read_lines
from tests.ranks.comparing import assert_same
from tests.ranks.conftest import Nursery, Ranks, events, losses
from tests.ranks.poison import at_random, beyond_vocabulary, poison
from tests.ranks.test_resume import BF16_MASTERS

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]

QUICK = (  # a run that has learned enough by step 14 for random tokens to be a spike
    "optimizer.lr=5e-3",
    "train.steps=22",
    "train.evaluate_every=0",
    "storage.keep_last=10",
    "guard.window=8",
    "guard.least_steps=6",
    "guard.loss_sigmas=2",
    "guard.norm_spike=ignore",
)
AXES = ("tp", "pp")
SPIKE = 14  # of the first step whose data are poisoned, from 0


def troubled(nursery: Nursery, folder: RunFolder, **trouble: Any) -> Ranks:
    return nursery.start(folder, 2, program="tests.ranks.troubled", TROUBLE=json.dumps(trouble))


def states(folder: RunFolder, rank: int) -> list[str]:
    return [record["state"] for record in read_lines(folder.path / f"states-{rank}.jsonl")]


def history(folder: RunFolder) -> Any:
    entry = Catalog(folder.checkpoints).latest()
    assert entry is not None and entry.manifest.guard is not None
    return entry.manifest.guard


@pytest.mark.parametrize(
    ("strategy", "masters"),
    [
        ("zero1", True),
        ("zero3", False),
        pytest.param("offload", True, marks=pytest.mark.slow),
        *(
            pytest.param(name, False, marks=pytest.mark.slow)
            for name in ("ddp", "zero1", "zero2", "tp", "pp", "offload")
        ),
    ],
)
def test_skips_change_no_bit_and_a_rollback_equals_a_run_without_the_window(
    nursery: Nursery, new_run: NewRun, tmp_path: Path, strategy: str, masters: bool
) -> None:
    """NaN on rank 1 alone, in loss or gradients, from the very first step on; poisoned data at the 15th."""
    new_signing_key(tmp_path / "key.pem")  # that nobody uses: it goes back to what it has saved itself
    signed = f"policy.signed_by=[{tmp_path}/key.pem.pub]"
    folder, pure = (new_run(*QUICK, signed, f"parallelism={strategy}", "guard.loss_spike=rollback") for _ in range(2))
    for each in (folder, pure) if masters else ():
        config = json.loads(each.deepspeed_json.read_text(encoding="utf-8"))
        each.write_json(each.deepspeed_json, config | BF16_MASTERS)
    poison(folder, [SPIKE], at_random)
    bad = {"nan_loss": [0, 6], "nan_gradient": [1, 8]}
    ranks = troubled(nursery, folder, **bad)
    assert ranks.wait() == [0, 0], ranks.log()
    assert troubled(nursery, pure, **bad, without=[80, 120]).wait() == [0, 0]

    skips = events(folder, "skip")
    assert [(e["step"], e["trouble"], e["skipped"]) for e in skips] == [
        (1, "non_finite", 1),
        (2, "non_finite", 2),
        (7, "non_finite", 3),
        (9, "non_finite", 4),
    ]
    assert [e["loss"] is None for e in skips] == [True, False, True, False]
    assert [e["grad_norm"] is None for e in skips] == [False, True, False, True]
    (back,) = events(folder, "rollback")
    assert (back["step"], back["trouble"], back["to_step"]) == (SPIKE + 1, "loss_spike", 10)
    assert back["loss"] > back["limit"] > back["median"] and back["left_out"] == [80, 120]
    for rank in range(2):
        after = states(folder, rank)
        assert after[0] == after[1] and after[5] == after[6] and after[7] == after[8]
        assert after[13] == after[14], "a step that leads to a rollback is not applied either"
        assert len(set(after[:15])) == 15 - 4
    assert_same(pure, folder)
    assert history(folder).losses == history(pure).losses
    assert history(folder).norms == history(pure).norms
    assert [r.to_step for r in history(folder).rollbacks] == [10]
    entry = Catalog(folder.checkpoints).latest()
    assert entry is not None and entry.manifest.optimizer_step == 22 - 4


@pytest.mark.parametrize("strategy", ["zero1", pytest.param("zero3", marks=pytest.mark.slow)])
def test_kills_around_a_rollback_change_nothing(nursery: Nursery, new_run: NewRun, strategy: str) -> None:
    """The margin makes the run go back beyond its newest checkpoint, which is then void."""
    options = (*QUICK, f"parallelism={strategy}", "guard.loss_spike=rollback", "guard.rollback_margin=6")
    calm, killed = (new_run(*options) for _ in range(2))
    for folder in (calm, killed):
        poison(folder, [SPIKE], at_random)
    assert troubled(nursery, calm).wait() == [0, 0]
    for where in ("before rollback", "in rollback"):
        assert troubled(nursery, killed, dies=where).wait()[0] == -9
        assert Catalog(killed.checkpoints).steps() == [5, 10]
    ranks = troubled(nursery, killed)
    assert ranks.wait() == [0, 0], ranks.log()
    assert [e["step"] for e in events(killed, "void")] == [e["step"] for e in events(calm, "void")] == [10]
    assert [e["attempt"] for e in events(killed, "rollback")] == [1, 2]
    assert [e["step"] for e in events(killed, "resume")] == [10, 5]
    assert_same(calm, killed)
    assert history(calm).losses == history(killed).losses
    assert not list(killed.checkpoints.glob("void-*")), "retention removes them once the run has come as far again"


def test_a_kill_right_after_a_skip_changes_nothing(nursery: Nursery, new_run: NewRun) -> None:
    calm, killed = (new_run(*QUICK, "parallelism=zero2") for _ in range(2))
    for folder in (calm, killed):
        poison(folder, [SPIKE, SPIKE + 1], at_random)
    assert troubled(nursery, calm).wait() == [0, 0]
    assert troubled(nursery, killed, dies="after skip").wait()[0] == -9
    assert troubled(nursery, killed).wait() == [0, 0]
    assert [e["step"] for e in events(calm, "skip")] == [15, 16]
    assert [e["step"] for e in events(killed, "skip")] == [15, 15, 16]
    assert_same(calm, killed)
    saved = [e["step"] for e in events(calm, "saved")]
    assert saved == [5, 10, 17, 20, 22], "in trouble no checkpoint is made"


def test_a_stage_of_other_data_is_no_spike(nursery: Nursery, new_run: NewRun) -> None:
    """To a model that has read one language only, another is as strange as random tokens."""
    stages = ("+stages.one={from_step: 1, weights: {de: 1.0}}", "+stages.other={from_step: 14, weights: {fr: 1.0}}")
    folder = new_run(*QUICK, *stages, "guard.loss_sigmas=1.5")
    assert nursery.start(folder, 2).wait() == [0, 0]
    assert losses(folder)[15] > losses(folder)[14] + 1.5
    assert events(folder, "skip") == []
    assert len(history(folder).losses) == 22 - 14


def test_more_trouble_than_allowed_ends_the_run(nursery: Nursery, new_run: NewRun) -> None:
    """Skips, then a rollback; the data beyond are bad too, so the same again; then the end, its checkpoint intact."""
    at_13 = ("storage.save_every=13", "guard.rollback_margin=0")
    folder = new_run(*QUICK, "guard.skips_in_row=2", "guard.rollbacks_to_one=1", *at_13)
    poison(folder, range(SPIKE, 30), at_random)
    ranks = troubled(nursery, folder)
    assert ranks.wait() == [1, 1]
    assert [e["step"] for e in events(folder, "skip")] == [15, 16, 14, 15]
    assert [e["to_step"] for e in events(folder, "rollback")] == [13]
    for rank in range(2):
        assert "step 16 gave loss" in ranks.message(rank) and "went back to step 13 1 times already" in ranks.message()
    catalog = Catalog(folder.checkpoints)
    assert [(entry.step, catalog.verify(entry.step)) for entry in catalog.entries()] == [(13, [])]


def test_stop_is_stop(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run(*QUICK, "guard.norm_spike=stop", "guard.norm_sigmas=10")
    poison(folder, [SPIKE], at_random)
    ranks = troubled(nursery, folder)
    assert ranks.wait() == [1, 1]
    assert "step 15 gave gradient norm" in ranks.message() and "training cannot go on" in ranks.message(1)
    assert events(folder, "hopeless")[0]["grad_norm"] > events(folder, "hopeless")[0]["limit"]


def test_tokens_beyond_the_vocabulary_end_all_ranks_in_the_same_words(nursery: Nursery, new_run: NewRun) -> None:
    folder = new_run(*QUICK)
    poison(folder, [3], beyond_vocabulary)
    ranks = nursery.start(folder, 2)
    assert ranks.wait() == [1, 1]
    assert ranks.message(0) == ranks.message(1)
    assert "holds the token 60000" in ranks.message() and "data.sources." in ranks.message()
    assert max(losses(folder)) == 3
