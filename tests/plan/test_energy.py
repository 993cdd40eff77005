"""Energy and carbon against sums done by hand; what is unknown stays unknown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.plan.energy import DRAW, DRAW_HIGH, DRAW_LOW, Energy, energy, grid_of
from aiftrain.plan.groups import Groups
from aiftrain.plan.spec import resolve
from aiftrain.run.spec import RunSpec
from tests.plan.costing import FACTORY, HARDWARE, lasting, run, without


def estimated(spec: RunSpec, node_hours: float = 1000) -> Energy:
    return energy(spec, lasting(spec, node_hours=node_hours))


def test_all_three_boundaries_by_hand() -> None:
    """1000 node-hours of four devices of 500 W at 85 % and 1000 W besides, a PUE of 1.25, 66.6 g/kWh in Finland."""
    found = estimated(run())
    assert found.device and found.node and found.facility and found.carbon and found.grid
    assert found.device.expected == pytest.approx(1.7)
    assert (found.device.low, found.device.high) == pytest.approx((1.52, 2.0))
    assert found.node.expected == pytest.approx(2.7)
    assert found.facility.expected == pytest.approx(3.375)
    assert found.grid.g_per_kwh == 66.6
    assert found.carbon.expected == pytest.approx(3.375 * 0.0666)
    assert found.carbon_boundary == "facility"
    assert found.unknowns == ()


def test_without_a_pue_the_facility_is_unknown_and_carbon_is_of_the_nodes() -> None:
    found = estimated(run(factory=without(FACTORY, "pue")))
    assert found.facility is None
    assert found.carbon_boundary == "nodes"
    assert found.unknowns == ("factory.pue",)


def test_without_the_rest_of_the_node_a_pue_has_nothing_to_be_applied_to() -> None:
    found = estimated(run(hardware=without(HARDWARE, "node_power_w")))
    assert (found.node, found.facility) == (None, None)
    assert found.carbon_boundary == "devices"
    assert found.unknowns == ("hardware.node_power_w",)


def test_without_power_or_grid_nothing_is_guessed() -> None:
    dark = estimated(run(hardware=without(HARDWARE, "device_power_w")))
    assert (dark.device, dark.node, dark.facility, dark.carbon) == (None, None, None, None)
    assert dark.method.startswith("not estimated")
    nowhere = estimated(run(factory=without(FACTORY, "country")))
    assert (nowhere.carbon, nowhere.carbon_boundary, nowhere.grid) == (None, None, None)
    assert nowhere.unknowns == ("factory.country",)


def test_what_the_user_knows_of_the_grid_comes_first() -> None:
    grid = grid_of(run(plan={"grid_g_per_kwh": 0}))
    assert grid is not None
    assert (grid.name, grid.g_per_kwh) == ("plan.grid_g_per_kwh", 0)
    told = estimated(run(plan={"grid_g_per_kwh": 100}))
    assert told.carbon and told.facility
    assert told.carbon.expected == pytest.approx(told.facility.expected / 10)


def test_every_site_with_a_country_has_a_dated_grid() -> None:
    groups = Groups()
    for name in groups.choices("factory"):
        country = groups.read("factory", name).get("country")
        if country:
            grid = grid_of(run(factory=FACTORY | {"country": country}))
            assert grid is not None, f"{name}: conf/grid.yaml has no {country}"
            assert grid.name == f"grid {country} 2024"
            assert 5 < grid.g_per_kwh < 1000


def test_ranks_that_leave_devices_idle_do_not_save_their_energy() -> None:
    few = resolve(["recipe=eu-llm-1b", "factory=lumi", "launcher.ranks_per_node=4"])
    all_ranks = resolve(["recipe=eu-llm-1b", "factory=lumi"])
    assert estimated(few) == estimated(all_ranks)


@given(st.floats(0.01, 1e7))
def test_ranges_are_in_order_and_wider_boundaries_take_more(node_hours: float) -> None:
    found = estimated(run(), node_hours)
    assert found.device and found.node and found.facility
    for band in (found.device, found.node, found.facility):
        assert band.low < band.expected < band.high
    assert found.device.expected < found.node.expected < found.facility.expected
    assert DRAW_LOW < DRAW < DRAW_HIGH
