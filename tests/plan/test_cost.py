"""The whole cost of a run: the parts fit together, unknowns are named once, low and high predictions give a range."""

from __future__ import annotations

import pytest

from aiftrain.plan.cost import Cost, cost
from aiftrain.plan.memory import checkpoint_bytes
from aiftrain.plan.spec import resolve
from aiftrain.run.layout import ParallelLayout, make_layout
from aiftrain.run.spec import RunSpec
from tests.plan.costing import HARDWARE, layout, run, without

SEVEN = ["recipe=eu-llm-7b", "factory=lumi"]


def priced(spec: RunSpec, seconds_per_step: float) -> Cost:
    found = make_layout(spec)
    assert isinstance(found, ParallelLayout)
    octets = checkpoint_bytes(spec)
    return cost(spec, found, seconds_per_step=seconds_per_step, checkpoint_bytes=octets, startup_seconds=120)


def test_a_site_that_is_known_leaves_nothing_but_the_queue_unknown() -> None:
    assert priced(run(), 1.0).unknowns == ("plan.queue_hours_per_job",)


def test_a_site_of_which_nothing_is_known_still_gets_its_days() -> None:
    bare = {"name": "bare", "title": "A site", "scheduler": "slurm"}
    found = priced(run(factory=bare, hardware=without(HARDWARE, "device_power_w", "node_power_w")), 1.0)
    assert found.calendar.days > 0
    assert (found.bill.units, found.energy.device, found.energy.carbon, found.storage.areas) == (None, None, None, ())
    assert found.unknowns == (
        "plan.queue_hours_per_job",
        "factory.billing",
        "hardware.device_power_w",
        "hardware.node_power_w",
        "factory.pue",
        "factory.country",
    )


def test_a_slower_prediction_costs_more_of_everything_but_the_compute() -> None:
    quick, slow = priced(resolve(SEVEN), 15.0), priced(resolve(SEVEN), 18.0)
    assert quick.calendar.days < slow.calendar.days
    assert quick.bill.units and slow.bill.units and quick.bill.units < slow.bill.units
    assert quick.energy.device and slow.energy.device
    assert quick.energy.device.expected < slow.energy.device.expected
    assert quick.compute.architecture == slow.compute.architecture


def test_the_bill_of_a_large_run_by_hand() -> None:
    """128 nodes at four GPU-hours each for as long as the calendar says."""
    found = priced(resolve([*SEVEN, "access=large-scale", "access.granted=1000000"]), 10.0)
    assert found.bill.units is not None
    assert found.bill.units == pytest.approx(found.calendar.days * 24 * 128 * 4)
    assert found.bill.share == pytest.approx(found.bill.units / 1e6)
    assert found.bill.modes == ("EuroHPC AI Factories, Large Scale", "EuroHPC Regular access")


def test_what_the_user_knows_is_used_and_no_longer_assumed() -> None:
    told = resolve([*SEVEN, "plan.failures_per_node_day=0.0", "plan.write_gb_per_s=100", "plan.queue_hours_per_job=6"])
    found = priced(told, 10.0)
    assert found.calendar.failures == 0
    assert found.calendar.queue_days == found.calendar.jobs * 6 / 24
    assert not any("Llama" in note or "Jean Zay" in note for note in found.assumptions)
    assert "plan.queue_hours_per_job" not in found.unknowns


def test_a_cost_is_plain_json_and_comes_back_as_it_was() -> None:
    found = cost(run(), layout(), seconds_per_step=1.0, checkpoint_bytes=10**9, startup_seconds=60)
    assert Cost.model_validate_json(found.model_dump_json()) == found
    assert any(note.startswith("energy: 85%") for note in found.assumptions)
