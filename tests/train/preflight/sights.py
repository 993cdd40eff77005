"""What ranks see on nodes where all is well, and where tests change one thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec
from aiftrain.train.preflight.survey import DeviceSight, FolderSight, Sight
from tests.conftest import small_spec

GIB = 2**30
_GPU = {"name": "gpu", "title": "A GPU node", "kind": "cuda", "devices_per_node": 4, "device_memory_gib": 64}
_FACTORY = {"name": "site", "title": "A site", "scheduler": "slurm", "cpus_per_task": 4}


def gpu_spec(*, nodes: int = 2, factory: dict[str, Any] | None = None, **hardware: Any) -> RunSpec:
    """A run on GPU nodes of four devices, 16 cores and four NUMA domains."""
    return small_spec(
        hardware=_GPU | hardware,
        factory=_FACTORY | (factory or {}),
        launcher={"name": "slurm"},
        nodes=nodes,
    )


def gpu_layout(nodes: int = 2) -> ParallelLayout:
    world = 4 * nodes
    return ParallelLayout(
        nodes=nodes,
        ranks_per_node=4,
        world_size=world,
        data_parallel=world,
        zero_stage=1,
        micro_batch=1,
        accumulation=1,
    )


def sights(nodes: int = 2) -> list[Sight]:
    """Every rank on the four cores of its device's domain."""
    return [_sight(rank) for rank in range(4 * nodes)]


def changed(seen: list[Sight], rank: int, **changes: Any) -> list[Sight]:
    """`seen` with one rank's sight changed; a dictionary changes its device."""
    sight = seen[rank]
    if isinstance(device := changes.get("device"), dict):
        assert sight.device is not None
        changes["device"] = replace(sight.device, **device)
    return [*seen[:rank], replace(sight, **changes), *seen[rank + 1 :]]


def _sight(rank: int) -> Sight:
    local = rank % 4
    address = f"0000:{local}1:00.0"
    room = FolderSight("/scratch", 10**15, 10**9, writable=True)
    return Sight(
        rank=rank,
        local_rank=local,
        host=f"n{rank // 4}",
        cores=f"{4 * local}-{4 * local + 3}",
        online="0-15",
        numa={str(domain): f"{4 * domain}-{4 * domain + 3}" for domain in range(4)},
        interfaces={"lo": "unknown", "hsn0": "up", "hsn1": "up"},
        cards={"mlx5_0": "ACTIVE", "mlx5_1": "ACTIVE"},
        variables={},
        memory_gib=500.0,
        shared_memory=100 * GIB,
        device=DeviceSight(4, "GPU", address, address, local, 64.0, 63.0),
        folders=[room] * 3 if local == 0 else [],
    )
