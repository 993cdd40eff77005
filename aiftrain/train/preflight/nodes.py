"""Judges what the ranks saw: devices, memory and room of each node, against the plan and against the other nodes."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec
from aiftrain.train.preflight.finding import Finding, name_ranks
from aiftrain.train.preflight.survey import DeviceSight, Sight

_GIB = 2**30
_FEW_FILES = 10_000
_LITTLE_ROOM = 1.0  # GiB: of temporary space for compilers, and of the memory that NCCL's ranks on one node share
_NCCL_FAILS = 32 * 2**20  # bytes of shared memory: with Docker's 64 MiB, NCCL starts only just or not at all
# Of a device's memory. Its own context and what NCCL was given take a few per cent; a tenth gone is another process,
# and with half of it gone no plan holds.
_MEMORY_TAKEN, _MEMORY_GONE = 0.9, 0.5
_LESS_THAN_PEERS = 0.5  # of the memory that nodes of the same job have available, usually


def judge_nodes(sights: Sequence[Sight], spec: RunSpec, layout: ParallelLayout) -> Iterator[Finding]:
    """Everything about nodes as such; `sights` in order of rank."""
    nodes = by_host(sights)
    for of_node in nodes.values():
        yield from _devices(of_node, spec, several=len(nodes) > 1)
        yield from _room(of_node, spec, layout)
    yield from _other_kinds(sights)
    yield from _memory(nodes)


def by_host(sights: Iterable[Sight]) -> dict[str, list[Sight]]:
    """Host -> its ranks' sights, hosts in the order of their first ranks."""
    nodes: dict[str, list[Sight]] = defaultdict(list)
    for sight in sights:
        nodes[sight.host].append(sight)
    return dict(nodes)


def _devices(of_node: Sequence[Sight], spec: RunSpec, *, several: bool) -> Iterator[Finding]:
    """That each rank has a device of its own, whole and free."""
    owners: dict[str, list[Sight]] = defaultdict(list)
    for sight in of_node:
        if sight.device is None:
            continue
        if sight.device.trouble or not sight.device.visible:
            found = sight.device.trouble or "torch sees no GPU"
            yield _of(sight, "device", found, f"a working device of {spec.hardware.name}", refuses=True)
        else:
            owners[sight.device.identity].append(sight)
            yield from _device_memory(sight, sight.device, spec, several=several)
    for sharing in owners.values():
        if len(sharing) > 1:
            yield _shared(sharing, spec)


def _shared(sharing: Sequence[Sight], spec: RunSpec) -> Finding:
    visible = min(sight.device.visible for sight in sharing if sight.device)
    return Finding(
        about="device",
        host=sharing[0].host,
        ranks=tuple(sight.rank for sight in sharing),
        found=f"one device for {name_ranks(sight.rank for sight in sharing)}, with {visible} visible",
        expected=f"a device for each rank, of {spec.hardware.devices_per_node} on a node",
        refuses=True,
    )


def _device_memory(sight: Sight, device: DeviceSight, spec: RunSpec, *, several: bool) -> Iterator[Finding]:
    planned = spec.hardware.device_memory_gib
    if planned and device.total_gib < _MEMORY_TAKEN * planned:
        yield _of(sight, "device memory", f"{device.total_gib:.0f} GiB", f"{planned:.0f} GiB of {spec.hardware.name}")
    if device.free_gib < _MEMORY_TAKEN * device.total_gib and not spec.hardware.unified_memory:
        found = f"{device.free_gib:.0f} of {device.total_gib:.0f} GiB free"
        gone = device.free_gib < _MEMORY_GONE * device.total_gib
        yield _of(sight, "device memory", found, "a device that nobody else uses", refuses=several and gone)


def _other_kinds(sights: Sequence[Sight]) -> Iterator[Finding]:
    """Devices of another name than most of the job's."""
    named = [(sight, sight.device.name) for sight in sights if sight.device and sight.device.name]
    if named:
        usual = statistics.mode(name for _, name in named)
        yield from (_of(sight, "device", name, f"{usual}, as elsewhere") for sight, name in named if name != usual)


def _memory(nodes: dict[str, list[Sight]]) -> Iterator[Finding]:
    """A node with much less memory to give than the others: something is left over. Two cannot tell who is odd."""
    available = {host: of_node[0].memory_gib for host, of_node in nodes.items()}
    known = [memory for memory in available.values() if memory is not None]
    usual = statistics.median(known) if len(known) > 2 else 0.0
    for host, memory in available.items():
        if memory is not None and memory < _LESS_THAN_PEERS * usual:
            found = f"{memory:.0f} GiB available"
            yield Finding("host memory", host, _ranks(nodes[host]), found, f"about {usual:.0f} GiB, as elsewhere")


def _room(of_node: Sequence[Sight], spec: RunSpec, layout: ParallelLayout) -> Iterator[Finding]:
    """Shared memory, temporary space, and room for a checkpoint: with less the first save fails, hours from now."""
    first = of_node[0]
    if first.device is not None and len(of_node) > 1 and first.shared_memory < _LITTLE_ROOM * _GIB:
        found = f"{first.shared_memory / 2**20:,.0f} MiB free in /dev/shm"
        refuses = first.shared_memory < _NCCL_FAILS
        yield _of(first, "shared memory", found, "1 GiB; a container may need --shm-size", refuses=refuses)
    if not first.folders:
        return
    *kept, temporary = first.folders
    if temporary.free < _LITTLE_ROOM * _GIB:
        found = f"{temporary.free / _GIB:.1f} GiB free in {temporary.path}"
        yield _of(first, "temporary space", found, "1 GiB; TMPDIR may name another folder")
    for folder in {folder.path: folder for folder in kept}.values():
        if not folder.writable:
            yield _of(first, "storage", f"{folder.path} cannot be written", "a folder that can", refuses=True)
    yield from _checkpoints(first, spec, layout)


def _checkpoints(sight: Sight, spec: RunSpec, layout: ParallelLayout) -> Iterator[Finding]:
    folder, need = sight.folders[-2], _least_bytes_each(spec) * spec.model.parameters
    if folder.free < need:
        found = f"{folder.free / _GIB:,.1f} GiB free at {folder.path}"
        yield _of(sight, "storage", found, f"room for a checkpoint, {need / _GIB:,.1f} GiB,", refuses=True)
    if folder.files is not None and folder.files < _FEW_FILES:
        found, fails = f"{folder.files:,} more files fit at {folder.path}", folder.files <= layout.world_size
        yield _of(sight, "storage", found, f"room for {_FEW_FILES:,}; a checkpoint has one a rank", refuses=fails)


def _least_bytes_each(spec: RunSpec) -> int:
    """Of a checkpoint, for a parameter: the fp32 weight, and what the optimizer keeps of each at least."""
    return 4 * (1 + min(len(group.states) for group in spec.optimizer.groups))


def _of(sight: Sight, about: str, found: str, expected: str, *, refuses: bool = False) -> Finding:
    settings = about in ("storage", "shared memory")
    return Finding(about, sight.host, (sight.rank,), found, expected, refuses, "settings" if settings else "node")


def _ranks(of_node: Sequence[Sight]) -> tuple[int, ...]:
    return tuple(sight.rank for sight in of_node)
