"""How costs read: every figure in its unit, and what is unknown in words."""

from __future__ import annotations

from typing import Any

from aiftrain.cli.plan_cost import rows
from aiftrain.plan.cost import cost
from aiftrain.plan.spec import resolve
from aiftrain.run.layout import ParallelLayout, make_layout
from aiftrain.run.spec import RunSpec
from tests.plan.costing import FACTORY, HARDWARE, run, without

SEVEN = ["recipe=eu-llm-7b", "factory=lumi", "access=large-scale"]


def text_of(spec: RunSpec, seconds_per_step: float = 12.0, **changes: Any) -> str:
    layout = make_layout(spec)
    assert isinstance(layout, ParallelLayout)
    known: dict[str, Any] = {"checkpoint_bytes": 12 * spec.model.parameters, "startup_seconds": 120}
    priced = cost(spec, layout, seconds_per_step=seconds_per_step, **(known | changes))
    return "\n".join(f"{name:8}{value}" for name, value in rows(priced))


def test_a_large_run_reads_as_a_person_would_say_it() -> None:
    text = text_of(resolve([*SEVEN, "access.granted=2000000"]))
    for phrase in (
        "days (of which",
        "jobs of 2 days",
        "waiting in the queue: unknown",
        "of the 2,000,000 granted",
        "fits EuroHPC AI Factories, Large Scale",
        "MWh devices",
        "nodes unknown (hardware.node_power_w is not known)",
        "t CO2e for the devices (grid FI 2024: 67 g/kWh)",
        "above 1e23 (general-purpose), below 1e25 (systemic risk)",
        "makes its maker a provider",
        "does not fit home, project, flash; fits scratch; fits, as far as limits are known, object",
        "TB-hours billed at most",
    ):
        assert phrase in text
    assert "compliant" not in text


def test_a_share_of_what_the_mode_gives_says_so() -> None:
    assert "of the most that EuroHPC AI Factories, Large Scale gives" in text_of(resolve(SEVEN))


def test_what_is_unknown_is_said_in_words() -> None:
    factory = without(FACTORY, "billing", "country", "pue", "storage_areas")
    text = text_of(run(factory=factory, hardware=without(HARDWARE, "device_power_w", "peak_bf16_tflops")))
    assert "what the site bills for them is unknown" in text
    assert "devices unknown (hardware.device_power_w is not known)" in text
    assert "carbon  unknown" in text
    assert "by hardware and time unknown" in text
    assert "None" not in text


def test_two_counts_that_differ_are_shown_with_the_utilisation_where_they_meet() -> None:
    text = text_of(resolve([*SEVEN, "time=01:00:00"]), startup_seconds=1800)
    assert "differ by more than 30 %: they agree at" in text


def test_the_sites_unit_is_not_said_twice_and_a_small_run_hears_what_it_could_be_part_of() -> None:
    billing = {"unit": "node-hour", "per_node_hour": 1}
    site = FACTORY | {"name": "jupiter", "billing": billing}
    text = text_of(run(steps=720_000, nodes=8, save_every=1000, factory=site), seconds_per_step=1.0)
    assert text.count("node-hours") == 1
    assert "takes less than one must ask for in EuroHPC AI Factories, Fast Lane" in text


def test_small_numbers_keep_their_figures() -> None:
    text = text_of(run(steps=1), seconds_per_step=0.5)
    assert "in 1 job of 10 hours" in text
    assert "less than a second to write one" in text
    assert "0 MWh" not in text
    assert "makes its maker a provider" not in text, "nobody asks that of a test run"
