"""What the tests of time share: a dense model of 1.3 billion parameters on nodes of four devices, all figures known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from aiftrain.plan.throughput.constants import Constants, Stack
from aiftrain.plan.throughput.step import Setting, Shape
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.machine import Hardware
from aiftrain.run.model import ModelSpec

MODEL = ModelSpec(
    name="small",
    vocab_size=50_000,
    hidden_size=2048,
    intermediate_size=5504,
    num_layers=24,
    num_heads=16,
    num_kv_heads=16,
)
EXPERTS = ModelSpec.model_validate(
    MODEL.model_dump()
    | {"name": "experts", "moe": {"num_experts": 8, "experts_per_token": 2, "expert_intermediate_size": 2752}}
)
HARDWARE = Hardware(
    name="gpu",
    title="A node of four",
    kind="cuda",
    devices_per_node=4,
    device_memory_gib=64,
    peak_bf16_tflops=312,
    peak_fp8_tflops=624,
    matmul_bf16_tflops=271,
    memory_gb_per_s=2000,
    intra_node_gb_per_s=300,
    inter_node_gb_per_s=25,
)
STACK = Stack(name="some", pattern="some")


def layout(**changes: Any) -> ParallelLayout:
    """Data parallelism over two nodes. Changes to an axis must go with changes to `data_parallel`."""
    axes = {"data_parallel": 8, "zero_stage": 1, "micro_batch": 4, "accumulation": 4} | changes
    names = ("data_parallel", "tensor_parallel", "pipeline_parallel", "context_parallel")
    world = 1
    for name in names:
        world *= axes.get(name, 1)
    nodes = -(-world // HARDWARE.devices_per_node)
    return ParallelLayout(nodes=nodes, ranks_per_node=min(world, 4), world_size=world, **axes)


def setting(
    model: ModelSpec = MODEL,
    hardware: Hardware = HARDWARE,
    constants: Constants | None = None,
    length: int = 2048,
    precision: str = "bf16",
    stack: Stack = STACK,
    **axes: Any,
) -> Setting:
    """A run on that hardware; `axes` go to the layout."""
    return Setting(Shape.of(model), layout(**axes), hardware, length, precision, constants or Constants(), stack)


def on(one: Setting, **figures: Any) -> Setting:
    """The same run on hardware with other figures."""
    return replace(one, hardware=one.hardware.model_copy(update=figures))


def layouts() -> st.SearchStrategy[dict[str, Any]]:
    """Axes of every kind of layout."""
    sizes = st.sampled_from((1, 2, 4, 8))
    return st.fixed_dictionaries(
        {
            "data_parallel": st.sampled_from((1, 2, 8, 64)),
            "tensor_parallel": sizes,
            "pipeline_parallel": sizes,
            "context_parallel": st.sampled_from((1, 2)),
            "zero_stage": st.integers(0, 3),
            "micro_batch": sizes,
            "accumulation": st.integers(1, 32),
            "recompute": st.sampled_from(("none", "selective", "full")),
            "sequence_parallel": st.booleans(),
        }
    )
