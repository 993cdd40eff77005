"""Slurm's ways to write a time, a job's partition and limits, and what keeps a job from a site."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.plan.limits import chosen_partition, seconds_of, site_problems, site_warnings, time_limit
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("30", 30 * 60),
        ("30:15", 30 * 60 + 15),
        ("03:00:00", 3 * 3600),
        ("2-00:00:00", 2 * 86400),
        ("1-12", 36 * 3600),
        ("1-12:30", 36 * 3600 + 30 * 60),
        ("soon", None),
        ("1:2:3:4", None),
        ("", None),
        ("-1", None),
    ],
)
def test_times_are_read_as_slurm_reads_them(time: str, seconds: int | None) -> None:
    assert seconds_of(time) == seconds


@given(st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_the_full_form_is_days_hours_minutes_seconds(days: int, hours: int, minutes: int, seconds: int) -> None:
    total = days * 86400 + hours * 3600 + minutes * 60 + seconds
    assert seconds_of(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == total


def test_a_job_gets_the_longest_time_of_its_partition_unless_it_asks_for_less() -> None:
    lumi = ["recipe=eu-llm-1b", "factory=lumi"]
    assert time_limit(resolve(lumi)) == "2-00:00:00"
    assert time_limit(resolve([*lumi, "launcher.partition=dev-g"])) == "03:00:00"
    assert time_limit(resolve([*lumi, "time=01:00:00"])) == "01:00:00"
    assert time_limit(resolve(["recipe=smoke"])) is None
    assert chosen_partition(resolve(lumi)) == "standard-g"


def test_a_site_with_pbs_is_launched_on_by_its_own_launcher() -> None:
    spec = resolve(["recipe=eu-llm-7b", "factory=hunter", "nodes=64", "data.root=/corpus", "account=mine"])
    assert make_plan(spec).estimate.partition == "default"
    assert make_plan(spec, to_launch=True).estimate.partition == "default"
    assert site_problems(spec.model_copy(update={"launcher": spec.launcher.model_copy(update={"name": "slurm"})})) != []


def test_no_job_has_more_nodes_than_there_are() -> None:
    jupiter = ["recipe=eu-llm-7b", "factory=jupiter"]
    assert site_problems(resolve([*jupiter, "nodes=5643"])) == []
    [problem] = site_problems(resolve([*jupiter, "nodes=5644"]))
    assert (problem.where, problem.fits) == ("nodes", "nodes=5643")


def test_an_account_of_another_form_is_warned_of_and_not_refused() -> None:
    lumi = ["recipe=eu-llm-1b", "factory=lumi", "data.root=/corpus"]
    odd, usual = (resolve([*lumi, f"account={account}"]) for account in ("mine", "project_465000001"))
    assert ["account=mine: accounts of lumi" in warning for warning in site_warnings(odd)] == [True]
    assert list(site_warnings(usual)) == []
    assert set(site_warnings(odd)) <= set(make_plan(odd, to_launch=True).estimate.warnings)


def test_a_container_without_an_image_is_told() -> None:
    spec = resolve(["recipe=eu-llm-1b", "factory=jupiter"])
    assert any("no image is named" in each for each in make_plan(spec).estimate.assumptions)
    named = resolve(["recipe=eu-llm-1b", "factory=jupiter", "factory.container.image=/e/image.sif"])
    assert not any("no image is named" in each for each in make_plan(named).estimate.assumptions)
