"""What of a run may change on the way: its future, and nothing that has decided anything yet."""

from __future__ import annotations

import pytest

from aiftrain.plan.spec import resolve
from aiftrain.run.identity import changed, changed_past, recorded
from aiftrain.run.spec import RunSpec

MIX = "+stages.mix={from_step: 50, weights: {python-docs: 1.0}}"
LONG = "+stages.long={from_tokens: 81920, sequence_length: 256}"  # at step 80
UNIT = "data.unit=128"


def run(*overrides: str) -> RunSpec:
    return resolve(["recipe=smoke", "train.steps=100", "optimizer.decay_fraction=0.2", *overrides])


def keys(was: RunSpec, now: RunSpec, step: int) -> list[str]:
    tokens = was.timeline.tokens_before(step)
    return [key for key, _, _ in changed_past(recorded(was), recorded(now), step, tokens)]


def test_a_stage_may_come_and_go_until_it_has_begun() -> None:
    assert keys(run(), run(MIX), 50) == []
    assert keys(run(MIX), run(), 50) == []
    assert keys(run(), run(MIX), 51) == ["stages.mix"]
    assert keys(run(MIX), run("+stages.mix={from_step: 50, weights: {python-source: 1.0}}"), 60) == [
        "stages.mix.weights.python-docs",
        "stages.mix.weights.python-source",
    ]
    assert keys(run(), run(LONG, UNIT), 80) == []
    assert keys(run(), run(LONG, UNIT), 81) == ["stages.long"]


def test_a_longer_stage_needs_the_unit_that_the_order_began_with() -> None:
    """Without it, the windows of the past would be others."""
    assert keys(run(), run(LONG), 10) == ["data.unit"]
    assert keys(run(LONG), run(LONG.replace("256", "512")), 10) == ["data.unit"]


def test_how_the_rate_decays_may_change_until_it_does() -> None:
    earlier, cosine, constant = (
        run(f"optimizer.{change}") for change in ("decay_fraction=0.5", "schedule=cosine", "schedule=constant")
    )
    assert keys(run(), earlier, 50) == []
    assert keys(run(), earlier, 51) == ["optimizer.decay_fraction"]
    assert keys(run(), run("optimizer.decay_shape=1-sqrt"), 80) == []
    assert keys(run(), run("optimizer.decay_shape=1-sqrt"), 81) == ["optimizer.decay_shape"]
    assert keys(run(), cosine, 21) == []
    assert keys(run(), cosine, 30) == ["optimizer.schedule"], "a cosine falls once it is warm"
    assert keys(constant, run(), 80) == [], "a run without an end gets one"


@pytest.mark.parametrize("change", ["optimizer.lr=0.5", "optimizer.warmup_steps=5", "train.global_batch=16", "seed=3"])
def test_what_a_run_began_with_stays(change: str) -> None:
    assert keys(run(), run(change), 0) == [change.partition("=")[0]]


def test_a_run_may_always_go_on_longer_and_warm_up_again() -> None:
    more = run("train.steps=200", "+stages.more={from_step: 100, rewarm: 10}")
    assert keys(run(), run("train.steps=200"), 100) == []
    assert keys(run(), more, 100) == []
    assert [key for key, _, _ in changed(recorded(run()), recorded(more))] == ["stages"]


def test_what_a_run_does_not_use_is_no_part_of_it() -> None:
    """So that checkpoints from before stages existed still belong to their run."""
    identity = run().identity()
    assert "stages" not in identity
    assert {"unit", "goldfish"}.isdisjoint(identity["data"])  # type: ignore[arg-type]
    assert "batch_warmup" not in identity["train"]  # type: ignore[operator]
    assert "decay_shape" not in identity["optimizer"]  # type: ignore[operator]


def test_the_checkpoints_of_a_run_keep_their_name() -> None:
    before = run()
    now = run(MIX).model_copy(update={"founded_as": before.lineage})
    assert run(MIX).lineage != before.lineage
    assert now.lineage == before.lineage
