"""What a bench measured stands in the place of the profile's figures: like for like, and ranks that share a device."""

from __future__ import annotations

import pytest

from aiftrain.errors import UserError
from aiftrain.plan.throughput.calibrate import Benched, calibrate
from aiftrain.plan.throughput.collectives import Links
from aiftrain.plan.throughput.constants import Calibration, Figures, shipped
from aiftrain.plan.throughput.figures import as_measured, figures_of
from aiftrain.plan.throughput.layer import Device
from aiftrain.plan.throughput.own import with_own
from aiftrain.run.machine import Hardware
from tests.benches import bench, product, step, stream, transfer
from tests.plan.throughput.observations import layout_of, observed, predicted, spec_of
from tests.plan.throughput.settings import HARDWARE, STACK

CPU = Hardware(name="cpu", title="", kind="cpu")
LINKS = (
    transfer("all-reduce", gb_per_s=0.1, size=1024, us=60.0),
    transfer("all-reduce", gb_per_s=4.0),
    transfer("all-gather", gb_per_s=5.0),
    transfer("reduce-scatter", gb_per_s=1.0),
    transfer("all-to-all", gb_per_s=99.0),
)


def calibration(figures: Figures, hardware: str = "cpu") -> Calibration:
    return shipped().model_copy(update={"figures": {hardware: figures}})


def test_a_device_has_the_rates_of_all_ranks_that_share_it() -> None:
    measured = bench(products=(product(0.1), product(0.05, precision="fp32")), streams=(stream(5.0),))
    figures = figures_of(measured, CPU)
    assert figures.matmul_tflops == {"bf16": 0.4, "fp32": 0.2}
    assert figures.memory_gb_per_s == 20.0
    on_gpus = figures_of(measured, CPU.model_copy(update={"devices_per_node": 4}))
    assert on_gpus.matmul_tflops["bf16"] == 0.1


def test_links_are_the_middle_one_of_the_rings_and_the_latency_that_of_the_smallest() -> None:
    figures = figures_of(bench(transfers=LINKS), CPU)
    assert figures.intra_node_gb_per_s == 4.0
    assert figures.intra_node_us == pytest.approx(60.0 / (2 * 3))
    assert (figures.inter_node_gb_per_s, figures.inter_node_us) == (None, None)


def test_what_was_measured_is_what_the_planner_reckons_with() -> None:
    """Not a share of it, as of a data sheet's figure."""
    across = tuple(each.model_copy(update={"scope": "across nodes", "gb_per_s": 8.0}) for each in LINKS)
    measured = bench(nodes=2, products=(product(200.0),), streams=(stream(900.0),), transfers=(*LINKS, *across))
    own, spec = calibration(figures_of(measured, HARDWARE), HARDWARE.name), spec_of()
    there = as_measured(HARDWARE, layout_of(spec), "bf16", own)
    links = Links.of(there, 2, own.constants, STACK)
    assert (links.near, links.far) == pytest.approx((4e9, 8e9))
    assert (links.near_hop, links.hop) == pytest.approx((10e-6, 10e-6))
    assert there.matmul_bf16_tflops == 200.0
    device = Device.of(there, "bf16", own.constants, STACK)
    assert device.stream == pytest.approx(900e9 * own.constants.hardware.get(HARDWARE.name, 1.0))


def test_ranks_that_share_a_cpu_have_their_part_and_their_links() -> None:
    own = calibration(figures_of(bench(products=(product(0.1),), streams=(stream(5.0),), transfers=LINKS), CPU))
    two = as_measured(CPU, layout_of(spec_of(ranks=2)), "bf16", own)
    assert two.matmul_bf16_tflops == pytest.approx(0.2)
    assert two.memory_gb_per_s == pytest.approx(10.0 / own.constants.memory_share)
    assert Links.of(two, 1, own.constants, STACK).gather(1e9, 2) == pytest.approx(0.5 / 4 + 10e-6)


def test_what_a_bench_could_not_measure_stays_as_it_was() -> None:
    own = calibration(figures_of(bench(products=(product(1.0),)), HARDWARE), HARDWARE.name)
    there = as_measured(HARDWARE, layout_of(spec_of()), "bf16", own)
    assert there.intra_node_gb_per_s == HARDWARE.intra_node_gb_per_s
    assert there.memory_gb_per_s == HARDWARE.memory_gb_per_s


def benched(factor: float, date: str = "2026-11-26", rate: float = 0.05) -> Benched:
    """A bench whose steps are `factor` times as fast as its own figures would have it."""
    spec = spec_of()
    measured = bench(products=(product(rate, precision="fp32"),), streams=(stream(5.0),), steps=(step(),))
    measured = measured.model_copy(update={"date": date})
    expected = predicted(spec, calibration(figures_of(measured, CPU)))
    run = observed(spec, 1.0)
    timed = type(run)(run.name, spec, run.execution, factor * expected, None)
    return Benched("/runs/bench", spec, measured, (timed, timed))


@pytest.mark.parametrize("factor", [0.4, 1.5])
def test_the_steps_of_a_bench_are_met_afterwards(factor: float) -> None:
    one = benched(factor)
    own = calibrate([], [one])
    assert own.benches == ("/runs/bench",) and own.runs == ()
    assert predicted(one.spec, with_own(shipped(), own)) == pytest.approx(one.steps[0].tokens_per_s, rel=0.1)


def test_a_bench_without_steps_has_its_figures_kept() -> None:
    own = calibrate([], [Benched("b", spec_of(), bench(products=(product(1.0),)), ())])
    assert own.figures["cpu"].matmul_tflops == {"bf16": 4.0}
    assert (own.hardware, own.stacks, own.talks) == ({}, {}, {})


def test_the_newest_bench_of_a_hardware_counts() -> None:
    own = calibrate([], [benched(1.0, "2026-11-28", 0.1), benched(1.0, "2026-11-27", 0.05)])
    assert own.figures["cpu"].matmul_tflops == {"fp32": 0.4}


def test_a_bench_and_a_run_of_two_sites_are_refused() -> None:
    there = observed(spec_of(factory={"name": "elsewhere", "title": "Elsewhere"}), 1.0)
    with pytest.raises(UserError, match="one site at a time; these are of elsewhere, local"):
        calibrate([there], [benched(1.0)])
