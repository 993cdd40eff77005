"""Bills, shares of a grant, and the access modes that a run fits."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from aiftrain.plan.bill import Bill, bill, gpu_hours_per_node_hour, shipped_modes
from aiftrain.plan.groups import Groups
from aiftrain.plan.spec import resolve
from aiftrain.run.access import AccessSpec
from aiftrain.run.spec import RunSpec
from tests.plan.costing import FACTORY, lasting, run, without

GROUPS = Groups()


def billed(spec: RunSpec, days: float = 10, node_hours: float = 1000) -> Bill:
    return bill(spec, lasting(spec, days=days, node_hours=node_hours), shipped_modes())


def named(names: tuple[str, ...]) -> set[str]:
    """Access modes by the names of their files."""
    return {mode.name for mode in shipped_modes() if mode.title in names}


def test_the_site_bills_in_its_own_unit() -> None:
    """32 core-hours a node-hour; four devices a node are four GPU-hours."""
    account = billed(run())
    assert (account.unit, account.units, account.gpu_hours, account.node_hours) == ("core-hour", 32_000, 4000, 1000)
    assert account.share is None


def test_a_share_is_of_what_was_granted() -> None:
    half = billed(run(access={"name": "none", "granted": 64_000}))
    assert half.share == 0.5
    assert half.warnings == ()
    double = billed(run(access={"name": "none", "granted": 16_000}))
    assert double.share == 2
    assert "the run takes 200% of the 16,000 granted" in double.warnings


def test_where_nothing_is_said_to_be_granted_the_share_is_of_the_most_that_the_mode_gives() -> None:
    mode = {"name": "any", "unit": "node-hour", "maximum": 4000}
    assert billed(run(access=mode)).share == 0.25
    assert billed(run(access=mode), node_hours=5000).warnings == ("the run takes 125% of the most that any gives",)


def test_where_the_sites_rule_is_unknown_so_are_units_and_share() -> None:
    account = billed(run(factory=without(FACTORY, "billing"), access={"name": "none", "granted": 1000}))
    assert (account.unit, account.units, account.share) == (None, None, None)
    assert account.unknowns == ("factory.billing",)


def test_a_gpu_hour_is_what_the_site_or_the_grant_says_it_is() -> None:
    lumi = ["recipe=eu-llm-1b", "factory=lumi"]
    assert gpu_hours_per_node_hour(resolve(lumi)) == 4, "a module of two devices"
    assert gpu_hours_per_node_hour(resolve([*lumi, "access.gpu_hours_per_node_hour=8"])) == 8
    assert gpu_hours_per_node_hour(resolve(["recipe=eu-llm-1b", "factory=karolina"])) == 8, "billed in node-hours"
    assert gpu_hours_per_node_hour(resolve(["recipe=smoke"])) is None


@pytest.mark.parametrize(
    ("factory", "node_hours", "days", "modes"),
    [
        ("lumi", 1000, 20, {"playground", "benchmark", "development"}),
        ("lumi", 1250, 20, {"playground", "benchmark", "development"}),
        ("lumi", 1251, 20, {"benchmark", "development"}),
        ("lumi", 5000, 40, {"fast-lane"}),
        ("lumi", 5000, 100, set()),
        ("lumi", 12_500, 40, {"fast-lane", "large-scale"}),
        ("lumi", 50_000, 90, {"large-scale", "ai-for-science", "regular"}),
        ("lumi", 50_000, 200, {"large-scale", "regular"}),
        ("lumi", 200_000, 200, {"large-scale", "extreme"}),
        ("lumi", 200_000, 400, set()),
        ("jupiter", 50_000, 90, {"large-scale"}),
        ("helios", 50_000, 90, set()),
    ],
)
def test_the_modes_that_a_run_fits(factory: str, node_hours: float, days: float, modes: set[str]) -> None:
    spec = resolve(["recipe=eu-llm-1b", f"factory={factory}"])
    assert named(billed(spec, days, node_hours).modes) == modes


def test_a_run_smaller_than_any_least_is_told_what_it_would_be_part_of() -> None:
    account = billed(resolve(["recipe=eu-llm-1b", "factory=helios"]), days=20, node_hours=2000)
    assert (account.modes, account.larger_modes) == ((), ())
    account = billed(resolve(["recipe=eu-llm-1b", "factory=jupiter"]), days=20, node_hours=2000)
    assert account.modes == ()
    assert named(account.larger_modes) == {"fast-lane", "large-scale", "extreme"}


def test_a_grant_that_is_over_too_soon_is_a_warning() -> None:
    account = billed(resolve(["recipe=eu-llm-1b", "factory=lumi", "access=fast-lane"]), days=120, node_hours=5000)
    assert account.fits_duration is False
    assert account.warnings == ("the run takes 120 days, and EuroHPC AI Factories, Fast Lane lasts 91",)
    window = ["access.start=2026-01-01", "access.end=2026-03-02"]
    ended = resolve(["recipe=eu-llm-1b", "factory=lumi", "access=large-scale", *window])
    assert ended.access.days == 60
    assert billed(ended, days=61).fits_duration is False
    assert billed(ended, days=60).fits_duration is True


def test_a_mode_that_a_machine_is_not_known_to_offer_is_a_warning() -> None:
    account = billed(resolve(["recipe=eu-llm-1b", "factory=karolina", "access=extreme"]))
    assert any("not known to be offered on karolina" in warning for warning in account.warnings)
    assert account.share is None


def test_every_shipped_mode_has_a_unit_a_size_a_duration_and_sources() -> None:
    assert {mode.name for mode in shipped_modes()} == {*GROUPS.choices("access")} - {"none"}
    factories = set(GROUPS.choices("factory"))
    for mode in shipped_modes():
        assert mode.unit
        assert mode.months
        assert set(mode.sites) <= factories
        assert any(size and size.maximum for size in map(mode.size_at, mode.sites))
        stated = {key for key in ("unit", "months", "minimum", "maximum", "sites") if getattr(mode, key)}
        assert set(mode.provenance) == stated
        assert all(source.date == "2026-11-22" for source in mode.provenance.values())


def test_access_never_changes_what_a_run_is() -> None:
    plain = resolve(["recipe=eu-llm-1b", "factory=lumi"])
    granted = resolve(
        ["recipe=eu-llm-1b", "factory=lumi", "access=regular", "access.granted=9", "plan.write_gb_per_s=3"]
    )
    assert (plain.digest, plain.lineage, plain.identity()) == (granted.digest, granted.lineage, granted.identity())


@pytest.mark.parametrize(
    "wrong",
    [
        {"minimum": 2, "maximum": 1},
        {"granted": 0},
        {"start": "2026-02-01", "end": "2026-01-01"},
        {"unit": "core-hour"},
    ],
)
def test_a_grant_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AccessSpec.model_validate({"name": "mine"} | wrong)
