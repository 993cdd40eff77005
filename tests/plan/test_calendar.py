"""The calendar: jobs, checkpoints, failures, against sums done by hand and against what must hold for any run."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.errors import ConfigError
from aiftrain.plan.calendar import (
    ASSUMED_FAILURES_PER_NODE_DAY,
    DAY,
    Calendar,
    assumed_write_rate,
    calendar,
    evaluation_steps,
)
from aiftrain.run.spec import RunSpec
from tests.plan.costing import FACTORY, layout, run

HOUR = 3600.0


def planned(spec: RunSpec, seconds_per_step: float = 100.0, **changes: Any) -> Calendar:
    known: dict[str, Any] = {
        "checkpoint_bytes": 100_000_000_000,
        "write_gb_per_s": 1.0,
        "startup_seconds": 300.0,
        "failures_per_node_day": 0.0,
    }
    return calendar(spec, layout(spec.nodes), seconds_per_step=seconds_per_step, **(known | changes))


def test_a_chain_of_jobs_done_by_hand() -> None:
    """1000 steps of 100 s and 10 checkpoints of 100 s: 101,000 s, of which a job of 36,000 s takes 35,400.

    Each job starts up for 300 s, reads its checkpoint twice for 200 s, and saves for 100 s at the end.
    """
    plan = planned(run())
    assert plan.jobs == 3
    assert plan.productive_days * DAY == pytest.approx(100_000)
    assert plan.checkpoint_seconds == pytest.approx((10 + 2) * 100)
    assert plan.restart_seconds == pytest.approx(3 * 300 + 2 * 200)
    assert plan.days * DAY == pytest.approx(100_000 + 1200 + 1300)
    assert plan.node_hours == pytest.approx(102_500 / HOUR)
    assert plan.device_hours == pytest.approx(4 * 102_500 / HOUR)
    assert plan.overhead_fraction == pytest.approx(2500 / 102_500)
    assert (plan.failures, plan.best_save_every) == (0, None)


def test_without_a_time_limit_there_is_one_job_that_reads_no_checkpoint() -> None:
    plan = planned(run(factory=FACTORY | {"partitions": {}}))
    assert (plan.jobs, plan.job_limit_seconds) == (1, None)
    assert plan.restart_seconds == pytest.approx(300)


def test_a_shorter_time_that_was_asked_for_makes_more_jobs() -> None:
    assert planned(run(time="02:00:00")).jobs > planned(run()).jobs


def test_few_failures_cost_half_an_interval_and_a_resumption_each() -> None:
    """A failure in 100 days of a node, intervals of 10,100 s: the first-order estimate is right to a percent."""
    spec = run(steps=100_000, factory=FACTORY | {"partitions": {}})
    calm, rough = planned(spec), planned(spec, failures_per_node_day=0.01)
    assert rough.failures == pytest.approx(rough.days * 0.01, rel=0.01)
    assert (rough.days - calm.days) * DAY == pytest.approx(rough.failures * (10_100 / 2 + 300 + 200), rel=0.01)


def test_failures_that_nobody_knows_are_assumed_as_in_llama_3_and_said_so() -> None:
    assert pytest.approx(0.00379, abs=1e-5) == ASSUMED_FAILURES_PER_NODE_DAY
    spec = run(nodes=64)
    assumed = planned(spec, failures_per_node_day=None)
    assert assumed.days == planned(spec, failures_per_node_day=ASSUMED_FAILURES_PER_NODE_DAY).days
    assert any("2407.21783" in note for note in assumed.assumptions)
    assert not any("2407.21783" in note for note in planned(spec).assumptions)


def test_a_write_rate_that_nobody_knows_is_assumed_as_on_jean_zay_and_said_so() -> None:
    assert assumed_write_rate(48) == assumed_write_rate(1000) == pytest.approx(57.5)
    assert assumed_write_rate(1) == pytest.approx(57.5 / 48)
    assumed = planned(run(), write_gb_per_s=None)
    assert assumed.save_seconds == pytest.approx(100 / (57.5 / 48))
    assert any("Jean Zay" in note for note in assumed.assumptions)


def test_the_best_interval_is_youngs() -> None:
    """Saving takes 100 s and something fails every 86,400 s: sqrt(2 * 100 * 86,400) is 4,157 s, 42 steps of 100 s."""
    assert planned(run(), failures_per_node_day=1.0).best_save_every == 42


def test_what_almost_never_fails_has_an_interval_too() -> None:
    """A failure in 10^304 days: as many seconds times those of a save are more than a float holds."""
    best = planned(run(), failures_per_node_day=1e-303).best_save_every
    assert best is not None and best > 10**150


@pytest.mark.parametrize("failing", [0.5, 2.0])
def test_the_best_interval_beats_its_neighbours(failing: float) -> None:
    free = FACTORY | {"partitions": {}}
    best = planned(run(steps=10_000, factory=free), failures_per_node_day=failing).best_save_every
    assert best is not None

    def days(save_every: int) -> float:
        return planned(run(steps=10_000, save_every=save_every, factory=free), failures_per_node_day=failing).days

    assert days(best) < min(days(best // 3), days(best * 3))


def test_evaluation_is_a_third_of_training_on_as_many_tokens() -> None:
    train = {"steps": 1000, "sequence_length": 32, "global_batch": 4, "evaluate_every": 300, "evaluate_batches": 6}
    spec = run(train=train)
    assert evaluation_steps(spec) == pytest.approx((3 + 1) * 6 * 1 / 3)
    assert planned(spec).evaluation_seconds == pytest.approx(800)
    assert evaluation_steps(run()) == 0


def test_the_queue_is_left_out_and_said_to_be_unknown_until_somebody_says() -> None:
    silent = planned(run())
    assert silent.queue_days is None
    assert silent.unknowns == ("plan.queue_hours_per_job",)
    told = planned(run(plan={"queue_hours_per_job": 12}))
    assert told.queue_days == pytest.approx(3 * 12 / 24)
    assert told.unknowns == ()
    assert told.days == silent.days


def test_a_job_that_is_over_before_its_first_step_is_refused_with_a_time_that_works() -> None:
    with pytest.raises(ConfigError, match="before it has trained a step") as error:
        planned(run(time="00:10:00"))
    (problem,) = error.value.problems
    assert problem.where == "time"
    assert problem.fits == "at least 00:12:00"
    assert planned(run(time="00:12:00")).jobs > 100


def test_failures_that_outrun_the_checkpoints_are_refused_and_more_checkpoints_help() -> None:
    with pytest.raises(ConfigError) as error:
        planned(run(steps=10_000, save_every=10_000), failures_per_node_day=2.0)
    assert error.value.problems[0].where == "storage.save_every"
    assert planned(run(steps=10_000, save_every=100), failures_per_node_day=2.0).days > 0


@given(
    steps=st.integers(1, 10**6),
    save_every=st.integers(1, 1000),
    nodes=st.integers(1, 1024),
    seconds=st.floats(0.05, 60),
    failing=st.floats(0, 0.02),
)
def test_the_calendar_adds_up(steps: int, save_every: int, nodes: int, seconds: float, failing: float) -> None:
    spec = run(steps=steps, save_every=save_every, nodes=nodes)
    try:
        plan = planned(spec, seconds, failures_per_node_day=failing, write_gb_per_s=50.0)
    except ConfigError as error:
        assert error.problems[0].where == "storage.save_every"
        assert save_every * seconds * failing * nodes > DAY
        return
    overheads = plan.evaluation_seconds + plan.checkpoint_seconds + plan.restart_seconds
    assert plan.days * DAY == pytest.approx(plan.productive_days * DAY + overheads)
    assert plan.days > plan.productive_days
    assert 0 < plan.overhead_fraction < 1
    assert plan.device_hours == pytest.approx(4 * plan.node_hours)
    assert plan.job_limit_seconds is not None
    assert plan.jobs >= math.ceil(plan.productive_days * DAY / plan.job_limit_seconds)


@given(st.integers(1, 512), st.integers(2, 8), st.floats(1, 100))
def test_more_nodes_of_the_same_efficiency_never_take_fewer_node_hours(nodes: int, times: int, seconds: float) -> None:
    few = planned(run(nodes=nodes), seconds, failures_per_node_day=None)
    many = planned(run(nodes=nodes * times), seconds / times, failures_per_node_day=None)
    assert many.node_hours >= few.node_hours * (1 - 1e-9)


@given(st.floats(0.1, 10), st.floats(1, 3))
def test_a_slower_step_never_takes_fewer_days(seconds: float, factor: float) -> None:
    assert planned(run(), seconds * factor).days >= planned(run(), seconds).days
