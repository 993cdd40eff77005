"""What the planner puts in the place of figures that nobody documents, in words."""

from __future__ import annotations

from collections.abc import Iterator

from aiftrain.plan.throughput.collectives import ASSUMED_FAR, ASSUMED_NEAR
from aiftrain.plan.throughput.layer import matmul_tflops, memory_gb_per_s
from aiftrain.run.machine import Hardware


def assumed_figures(hardware: Hardware, nodes: int) -> Iterator[str]:
    """Each assumption about `hardware` that the time of a step on `nodes` nodes rests on. Raises UnknownFigure."""
    if hardware.matmul_bf16_tflops is None:
        yield f"{matmul_tflops(hardware):,.0f} TFLOP/s of products, a share of the data sheet's rate"
    if hardware.memory_gb_per_s is None:
        yield f"{memory_gb_per_s(hardware):,.0f} GB/s of memory bandwidth, by the rate of products"
    if hardware.intra_node_gb_per_s is None and hardware.devices_per_node > 1:
        yield f"{ASSUMED_NEAR:g} GB/s between the devices of a node"
    if hardware.inter_node_gb_per_s is None and nodes > 1:
        yield f"{ASSUMED_FAR:g} GB/s of network for a device, as LUMI and Leonardo have"
