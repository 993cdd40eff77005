"""How many tasks the scheduler starts on a node, and the cores of each: one task a rank, or one a node."""

from __future__ import annotations

from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec


def starts_nodes(spec: RunSpec) -> bool:
    """Whether the one task of a node starts its ranks."""
    return spec.launcher.style == "task-per-node"


def tasks_per_node(spec: RunSpec, layout: ParallelLayout) -> int:
    return 1 if starts_nodes(spec) else layout.ranks_per_node


def cores_per_rank(spec: RunSpec, layout: ParallelLayout) -> int | None:
    """The factory's figure is for one rank a device; fewer ranks get more cores each. None: it states none."""
    return _share(spec, layout.ranks_per_node)


def cores_per_task(spec: RunSpec, layout: ParallelLayout) -> int | None:
    return _share(spec, tasks_per_node(spec, layout))


def binds_cores(spec: RunSpec, layout: ParallelLayout) -> bool:
    """Whether the factory's binding, which is for one task a device, is used."""
    return spec.factory.cpu_bind is not None and tasks_per_node(spec, layout) == spec.hardware.devices_per_node


def _share(spec: RunSpec, parts: int) -> int | None:
    each = spec.factory.cpus_per_task
    return None if each is None else max(1, each * spec.hardware.devices_per_node // parts)
