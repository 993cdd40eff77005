"""What is asked before jobs are submitted: their cost, in the units of the site, one by one and together."""

from __future__ import annotations

from aiftrain.launch.consent import cost_of_job, refuse_unconfirmed, wants_a_yes
from aiftrain.plan.plan import LaunchPlan, make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.spec import RunSpec


def planned(*overrides: str) -> tuple[RunSpec, LaunchPlan]:
    spec = resolve(["recipe=eu-llm-1b", "factory=lumi", "account=project_1", "data.root=/corpus", *overrides])
    return spec, make_plan(spec, to_launch=True)


def confirmed(job: tuple[RunSpec, LaunchPlan], above: float | None) -> tuple[RunSpec, LaunchPlan]:
    spec, plan = job
    launcher = spec.launcher.model_copy(update={"confirm_above": above})
    return spec.model_copy(update={"launcher": launcher}), plan


def test_a_large_job_wants_a_yes_and_its_cost_is_told_in_the_units_of_the_site() -> None:
    job = planned("nodes=8", "time=1-00:00:00")
    cost = "8 nodes for 1-00:00:00: up to 192 node-hours, 768 GPU-hours of project_1"
    assert str(cost_of_job(*job)) == cost
    assert wants_a_yes([job]) == f"{cost}, and launcher.confirm_above is 100 node-hours"
    for most in (192.0, None):
        assert wants_a_yes([confirmed(job, most)]) is None


def test_jobs_that_are_small_one_by_one_want_a_yes_together() -> None:
    job = planned("nodes=2", "time=1-00:00:00")
    assert wants_a_yes([job]) is None and wants_a_yes([job, job]) is None
    asked = "3 jobs: up to 144 node-hours, 576 GPU-hours of project_1, and launcher.confirm_above is 100 node-hours"
    assert wants_a_yes([job] * 3) == asked


def test_part_of_an_hour_and_a_site_without_units() -> None:
    spec = resolve(["recipe=smoke", "factory=generic-slurm", "train.micro_batch=1", "time=00:40:00", "account=a"])
    cost = cost_of_job(spec, make_plan(spec, to_launch=True))
    assert str(cost) == "1 node for 00:40:00: up to 0.667 node-hours of a"


def test_a_job_of_unknown_time_has_no_cost() -> None:
    spec = resolve(["recipe=smoke", "factory=generic-slurm", "train.micro_batch=1"])
    plan = make_plan(spec, to_launch=True)
    assert cost_of_job(spec, plan) is None and wants_a_yes([(spec, plan)]) is None


def test_all_reasons_are_told_at_once() -> None:
    assert "not submitted: a; b. To submit" in str(refuse_unconfirmed(["a", "b"]))
