"""What the tests of cost share: a run on a small site whose every figure is known, to do sums by hand."""

from __future__ import annotations

from typing import Any

from aiftrain.plan.calendar import Calendar, calendar
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec
from tests.conftest import small_spec

FACTORY: dict[str, Any] = {
    "name": "somewhere",
    "title": "A site",
    "scheduler": "slurm",
    "country": "FI",
    "pue": 1.25,
    "partition": "long",
    "partitions": {"long": {"max_time": "10:00:00"}},
    "billing": {"unit": "core-hour", "per_node_hour": 32},
    "storage_areas": {"scratch": {"path": "/scratch/<account>", "quota_gb": 1000, "max_files": 100, "purge_days": 30}},
}
HARDWARE: dict[str, Any] = {
    "name": "gpu",
    "title": "A node of four",
    "kind": "cuda",
    "devices_per_node": 4,
    "device_memory_gib": 64,
    "peak_bf16_tflops": 100,
    "device_power_w": 500,
    "node_power_w": 1000,
}


def run(*, steps: int = 1000, save_every: int = 100, nodes: int = 1, **changes: Any) -> RunSpec:
    """A run on `nodes` nodes of four devices that is never evaluated; `changes` replace whole top-level keys."""
    base: dict[str, Any] = {
        "factory": FACTORY,
        "hardware": HARDWARE,
        "train": {
            "steps": steps,
            "sequence_length": 32,
            "global_batch": 4 * nodes,
            "evaluate_batches": 0,
            "precision": "bf16",
        },
        "storage": {"name": "local", "save_every": save_every},
        "launcher": {"name": "slurm"},
        "nodes": nodes,
    }
    return small_spec(**(base | changes))


def layout(nodes: int = 1, devices: int = 4) -> ParallelLayout:
    """Data parallelism over `nodes` nodes."""
    return ParallelLayout(
        nodes=nodes,
        ranks_per_node=devices,
        world_size=nodes * devices,
        data_parallel=nodes * devices,
        zero_stage=1,
        micro_batch=1,
        accumulation=1,
    )


def lasting(spec: RunSpec, **changes: float) -> Calendar:
    """A calendar of `spec`, of which `changes` replace what the run itself would take."""
    some = calendar(
        spec,
        layout(),
        seconds_per_step=1,
        checkpoint_bytes=1,
        write_gb_per_s=1,
        startup_seconds=1,
        failures_per_node_day=0,
    )
    return some.model_copy(update=changes)


def without(document: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A copy of `document` that does not know `keys`."""
    return {key: value for key, value in document.items() if key not in keys}
