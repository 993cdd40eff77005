"""Search: the best layout is the best, the others lose for the reasons given, and advice can be taken."""

from __future__ import annotations

import re
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiftrain.errors import Problem, UserError
from aiftrain.plan.counts import counts, placed, queue_limits, queue_words
from aiftrain.plan.layouts import legal
from aiftrain.plan.nodes import Goal, fewest, meet, option, options
from aiftrain.plan.rivals import front_runners, rivals
from aiftrain.plan.search import best, has_roomy_form, judge
from aiftrain.plan.sensitivity import sensitivity
from aiftrain.plan.spec import resolve
from aiftrain.run.layout import ranks_per_node
from aiftrain.run.spec import RunSpec

NO_RATE = {"matmul_bf16_tflops": None, "peak_bf16_tflops": None}  # without them nothing can be said of time


@cache
def seven(factory: str = "lumi", *more: str) -> RunSpec:
    return resolve(["recipe=eu-llm-7b", f"factory={factory}", *more])


def on(spec: RunSpec, nodes: int) -> RunSpec:
    return spec.model_copy(update={"nodes": nodes})


def with_hardware(spec: RunSpec, **figures: float | None) -> RunSpec:
    return spec.model_copy(update={"hardware": spec.hardware.model_copy(update=figures)})


def with_batch(spec: RunSpec, sequences: int) -> RunSpec:
    return spec.model_copy(update={"train": spec.train.model_copy(update={"global_batch": sequences})})


def test_every_legal_layout_is_judged_and_the_first_is_the_fastest_that_fits() -> None:
    spec = on(seven(), 64)
    candidates = judge(spec, "bf16")
    assert len(candidates) == len(list(legal(spec)))
    speeds = [one.rate.tokens_per_s for one in candidates if one.rate]
    assert speeds == sorted(speeds, reverse=True) and len(speeds) > 3
    assert best(spec, "bf16") == candidates[0].spec
    assert candidates[0].fits and not candidates[0].why
    sizes = [one.memory.total for one in candidates if one.fits is False]
    assert sizes == sorted(sizes) and sizes
    assert all(one.fits is False for one in candidates[len(speeds) :])


@settings(deadline=None)
@given(st.sampled_from([1, 8, 48, 128, 384]))
def test_what_is_said_against_a_layout_is_what_was_predicted(nodes: int) -> None:
    winner, *others = judge(on(seven(), nodes), "bf16")
    for other in others:
        if other.rate is None:
            assert f"needs {other.memory.total / 2**30:,.1f} GiB of 60.8" == other.why
        elif found := re.match(r"([\d.]+)% slower: .* takes ([\d.,]+) s more", other.why):
            assert winner.rate is not None
            longer = other.rate.seconds_per_step - winner.rate.seconds_per_step
            assert float(found[1]) == pytest.approx(100 * longer / winner.rate.seconds_per_step, rel=0.06, abs=0.06)
            before = winner.part_seconds()
            largest = max(seconds - before[part] for part, seconds in other.part_seconds().items())
            assert float(found[2].replace(",", "")) == pytest.approx(largest, rel=0.06)
        else:
            assert other.why.startswith("as fast")


def test_of_equally_fast_layouts_the_one_that_shares_out_less_wins() -> None:
    candidates = judge(resolve(["recipe=eu-llm-1b", "factory=lumi"]), "bf16")
    places = {(one.strategy, one.layout.micro_batch, one.layout.recompute): n for n, one in enumerate(candidates)}
    assert places["zero1", 1, "none"] < places["zero2", 1, "none"]


@pytest.mark.parametrize(
    "unknown", [{"matmul_bf16_tflops": None, "peak_bf16_tflops": None}, {"device_memory_gib": None}]
)
def test_where_a_figure_is_unknown_the_layout_asked_for_is_kept_but_for_the_stage(unknown: dict[str, None]) -> None:
    spec = with_hardware(on(seven(), 64), **unknown)
    train = spec.train.model_copy(update={"micro_batch": 2, "recompute": "selective"})
    spec = spec.model_copy(update={"train": train})
    decided = best(spec, "bf16")
    assert isinstance(decided, RunSpec)
    assert (decided.train.micro_batch, decided.train.recompute) == (2, "selective")
    asked = [one for one in judge(spec, "bf16") if (one.layout.micro_batch, one.layout.recompute) == (2, "selective")]
    assert all(one.fits is False for one in asked if one.layout.zero_stage < decided.parallelism.stage)


def test_where_nothing_fits_the_nodes_named_would_do_and_fewer_would_not() -> None:
    spec = on(resolve(["recipe=eu-llm-70b", "factory=karolina"]), 1)
    found = best(spec, "bf16")
    assert isinstance(found, Problem) and "no layout fits" in found.found
    nodes = int(found.fits.removeprefix("nodes="))
    assert not isinstance(best(on(spec, nodes), "bf16"), Problem)
    assert not any(has_roomy_form(on(spec, fewer), "bf16") for fewer in counts(spec) if fewer < nodes)


def test_nodes_that_cannot_share_the_batch_hear_which_could() -> None:
    found = best(on(seven(), 100), "bf16")
    assert isinstance(found, Problem) and found.where == "train.global_batch"
    advised = [int(nodes) for nodes in re.findall(r"nodes=(\d+)", found.fits)]
    assert advised == [96, 128]
    assert all(judge(on(seven(), nodes), "bf16") for nodes in advised)


@settings(deadline=None)
@given(st.integers(1, 5000), st.sampled_from(["lumi", "leonardo", "meluxina"]))
def test_numbers_of_nodes_are_all_that_share_the_batch_in_some_queue(batch: int, factory: str) -> None:
    spec = with_batch(seven(factory), batch)
    each, found = ranks_per_node(spec), counts(spec)
    most = max(limit for _, limit in queue_limits(spec))
    assert found == [n for n in range(1, batch // each + 1) if batch % (n * each) == 0 and n <= most]


@pytest.mark.parametrize(
    ("factory", "nodes", "words"),
    [
        ("leonardo", 64, []),
        ("leonardo", 128, ["launcher.qos=boost_qos_bprod"]),
        ("karolina", 32, ["launcher.partition=qgpu_big"]),
        ("lumi", 16, []),
    ],
)
def test_nodes_come_from_the_queue_that_gives_them(factory: str, nodes: int, words: list[str]) -> None:
    there = placed(seven(factory), nodes)
    assert there is not None and queue_words(there) == words


def test_a_queue_that_was_asked_for_is_kept() -> None:
    assert placed(seven("leonardo", "launcher.partition=boost_usr_prod"), 128) is None
    assert placed(seven("lumi"), 2048) is None


@pytest.mark.parametrize("days", [10.0, 30.0, 365.0])
def test_a_deadline_gets_the_fewest_nodes_that_meet_it(days: float) -> None:
    among = options(seven(), "bf16")
    chosen = meet(Goal(deadline=days), among)
    assert chosen.days <= days
    assert all(one.days > days for one in among if one.nodes < chosen.nodes)
    assert fewest(seven(), "bf16", days) == chosen


def test_a_budget_gets_the_fastest_within_it_and_the_cheapest_lasts_no_longer_than_the_grant() -> None:
    among = options(seven(), "bf16")
    budget = sorted(one.units for one in among)[len(among) // 2]
    chosen = meet(Goal(budget=budget), among)
    assert chosen.units <= budget
    assert not [one for one in among if one.units <= budget and one.days < chosen.days]
    cheapest = meet(Goal(cheapest=True), among)
    assert cheapest.units == min(one.units for one in among)
    granted = meet(Goal(cheapest=True), options(seven("lumi", "access=large-scale"), "bf16"))
    assert granted.days <= 366 < cheapest.days


@pytest.mark.parametrize("goal", [Goal(deadline=0.5), Goal(budget=10.0)])
def test_a_goal_that_nothing_meets_hears_what_would(goal: Goal) -> None:
    among = options(seven(), "bf16")
    with pytest.raises(UserError, match="closest: nodes=") as refused:
        meet(goal, among)
    ways = dict(re.findall(r"--(deadline|budget) ([\d.]+)", str(refused.value)))
    advised = Goal(float(ways["deadline"])) if "deadline" in ways else Goal(budget=float(ways["budget"]))
    assert meet(advised, among)


def test_goals_where_something_is_unknown_say_what() -> None:
    with pytest.raises(UserError, match="nobody documents how jedi bills"):
        meet(Goal(budget=10), options(seven("jedi"), "bf16"))
    with pytest.raises(UserError, match=r"nothing can be said of any number.*peak_bf16_tflops"):
        meet(Goal(deadline=30), options(with_hardware(seven(), **NO_RATE), "bf16"))
    with pytest.raises(UserError, match=r"shares out train\.global_batch"):
        meet(Goal(deadline=30), options(with_batch(seven(), 7), "bf16"))


def test_jobs_too_short_for_a_step_are_a_reason_and_no_crash() -> None:
    one = option(on(seven("lumi", "time=00:05:00"), 16), "bf16")
    assert one is not None and one.prediction is None
    assert "is over before it has trained a step" in one.lacking


def test_rivals_cover_every_choice_that_the_best_does_not_make() -> None:
    candidates = judge(on(seven(), 64), "bf16")
    told = {choice: rival.why for rival in rivals(candidates) for choice in rival.choices}
    assert {"ddp", "zero1", "zero2", "zero3"} - {candidates[0].strategy} <= set(told)
    assert told["ddp"].startswith("no form fits") and told["ddp"].endswith("GiB of 60.8")
    assert "gathering weights" in told["zero3"]
    assert "computing activations again" in told["full recomputation"]
    assert candidates[0].strategy not in told and f"micro-batch {candidates[0].layout.micro_batch}" not in told
    front = front_runners(candidates, 3)
    assert front[0] == candidates[0] and len({(one.strategy, one.layout.recompute) for one in front}) == 3


def test_sensitivity_has_the_sign_that_physics_gives() -> None:
    spec = best(on(with_batch(seven(), 4096), 64), "bf16")
    assert isinstance(spec, RunSpec)
    effects = {influence.change: influence.effect for influence in sensitivity(spec, "bf16")}
    assert -0.1 < effects["matmul rate -10 %"] < -0.05
    assert -0.05 < effects["memory bandwidth -10 %"] < 0
    assert effects["network -50 %"] <= 0
    assert 0.8 < effects["nodes x 2"] < 1.05 and -0.55 < effects["nodes / 2"] < -0.45
    assert sensitivity(with_hardware(spec, **NO_RATE), "bf16") == []
    assert "network -50 %" not in {one.change for one in sensitivity(on(spec, 1), "bf16")}


def test_all_numbers_of_nodes_up_to_a_whole_machine_are_searched_at_once() -> None:
    spec = with_batch(seven("jupiter"), 22_400)
    among = options(spec, "bf16")
    assert among[-1].nodes * 4 == 22_400 and len(among) > 20
