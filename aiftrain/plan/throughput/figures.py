"""What a bench says of a site's nodes, in the place of the hardware profile's figures."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any

from aiftrain.plan.throughput.constants import Calibration, Constants, Figures
from aiftrain.run.bench import Bench, Transfer
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.machine import Hardware

_RING = ("all-reduce", "all-gather", "reduce-scatter")  # what training sends most of its bytes with


def figures_of(bench: Bench, hardware: Hardware) -> Figures:
    """The figures of one device; ranks that share one count together. What was not measured is None."""
    sharing = max(1.0, bench.machine.ranks_per_node / hardware.devices_per_node)
    rates: dict[str, float] = {}
    for product in bench.products:
        rates[product.precision] = max(rates.get(product.precision, 0.0), sharing * product.tflops)
    inside, across = (
        [each for each in bench.transfers if each.scope == scope] for scope in ("inside a node", "across nodes")
    )
    return Figures(
        date=bench.date,
        nodes=bench.machine.nodes,
        matmul_tflops=rates,
        memory_gb_per_s=max((sharing * each.gb_per_s for each in bench.streams), default=None),
        intra_node_gb_per_s=_bandwidth(inside),
        inter_node_gb_per_s=_bandwidth(across),
        intra_node_us=_hop_us(inside),
        inter_node_us=_hop_us(across),
    )


def as_measured(hardware: Hardware, layout: ParallelLayout, precision: str, calibration: Calibration) -> Hardware:
    """The hardware with what the user's own benches and runs measured. Ranks that share a CPU share its rates.

    A bench's figures win over the profile's; the rate of products that runs measured stands in where nothing else does.
    """
    ranks = max(1.0, layout.ranks_per_node / hardware.devices_per_node)
    figures = calibration.figures.get(hardware.name)
    changes = _of_bench(hardware, figures, layout, precision, calibration.constants) if figures else {}
    rate = changes.get("matmul_bf16_tflops") or hardware.matmul_bf16_tflops
    if rate is None and (seen := calibration.measured_rate(hardware, precision)) is not None:
        changes["matmul_bf16_tflops"] = seen
    for name in ("matmul_bf16_tflops", "memory_gb_per_s"):
        if name in changes:
            changes[name] /= ranks
    return hardware.model_copy(update=changes)


def _of_bench(
    hardware: Hardware, figures: Figures, layout: ParallelLayout, precision: str, constants: Constants
) -> dict[str, Any]:
    """Keys of the profile. The planner takes shares of documented bandwidths; what was measured is such a share."""
    near, far, memory = figures.intra_node_gb_per_s, figures.inter_node_gb_per_s, figures.memory_gb_per_s
    changes = {
        "matmul_bf16_tflops": figures.matmul_tflops.get(precision if hardware.is_cpu else hardware.half),
        "memory_gb_per_s": memory and memory / constants.memory_share,
        "intra_node_gb_per_s": near and near / constants.link_share,
        "inter_node_gb_per_s": far and far / (constants.net_share * figures.nodes**-constants.net_fall),
        "intra_node_us": figures.intra_node_us,
        "inter_node_us": figures.inter_node_us,
    }
    if near and hardware.is_cpu:
        changes["fast_domain"] = layout.ranks_per_node  # its ranks share one device, and the links are theirs
    return {name: value for name, value in changes.items() if value is not None}


def _bandwidth(transfers: Iterable[Transfer]) -> float | None:
    """GB/s: each operation at its best size, and of these the middle one."""
    best: dict[str, float] = {}
    for each in transfers:
        if each.operation in _RING:
            best[each.operation] = max(best.get(each.operation, 0.0), each.gb_per_s)
    return median(best.values()) if best else None


def _hop_us(transfers: Iterable[Transfer]) -> float | None:
    """Microseconds of one of the 2 (ranks - 1) hops of the smallest all-reduce."""
    reduces = [each for each in transfers if each.operation == "all-reduce"]
    if not reduces:
        return None
    smallest = min(reduces, key=lambda each: each.bytes)
    return smallest.seconds * 1e6 / (2 * (smallest.ranks - 1))
