"""Judges where ranks run: their cores against the plan's, their neighbours' and their device's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec
from aiftrain.run.tasks import binds_cores, cores_per_rank
from aiftrain.train.preflight.cores import Cores, parse_cores, stated_cores
from aiftrain.train.preflight.finding import Finding, name_ranks, runs_of
from aiftrain.train.preflight.nodes import by_host
from aiftrain.train.preflight.survey import Sight

_MOST = 0.5  # of a rank's cores must be its device's; hardware threads and spare cores make up the rest


def judge_binding(sights: Sequence[Sight], spec: RunSpec, layout: ParallelLayout) -> Iterator[Finding]:
    """Cores that are not the planned ones, shared with a neighbour, too few, or far from the device.

    Only what makes ranks wait for each other is a refusal: all of a node's ranks on one core. A local start binds
    ranks on CPUs to nothing, so there only masks that differ and overlap are told.
    """
    bound = spec.launcher.name != "local" and binds_cores(spec, layout)
    for of_node in by_host(sights).values():
        masks = [parse_cores(sight.cores) for sight in of_node]
        planned = [_planned(sight, spec) if bound else None for sight in of_node]
        if _all_on_one(masks) and spec.launcher.name != "local":
            yield from _on_one_core(of_node, masks[0])
            continue
        for sight, mask, wanted in zip(of_node, masks, planned, strict=True):
            yield from _own(sight, mask, wanted, cores_per_rank(spec, layout) or 1)
            yield from _near(sight, mask, spec, layout)
        yield from _overlaps(of_node, masks, planned)


def _all_on_one(masks: Sequence[Cores]) -> bool:
    return len(masks) > 1 and len(set(masks)) == 1 and len(masks[0]) == 1


def _on_one_core(of_node: Sequence[Sight], mask: Cores) -> Iterator[Finding]:
    """No finding where the node has no other core."""
    ranks, online = tuple(sight.rank for sight in of_node), parse_cores(of_node[0].online)
    if len(online) > 1:
        found, expected = f"all ranks on core {runs_of(mask)}", f"cores of their own, of {len(online)}"
        yield Finding("cores", of_node[0].host, ranks, found, expected, refuses=True, fault="settings")


def _planned(sight: Sight, spec: RunSpec) -> Cores | None:
    """The cores that the site's binding, or else the hardware's profile, gives to this rank; None: neither says."""
    stated = stated_cores(spec.factory.cpu_bind or "") or [parse_cores(cores) for cores in spec.hardware.device_cores]
    return stated[sight.local_rank % len(stated)] if stated else None


def _own(sight: Sight, mask: Cores, planned: Cores | None, count: int) -> Iterator[Finding]:
    if planned is not None and len(mask & planned) < _MOST * len(mask):
        expected = f"{runs_of(planned)}, the cores of its device,"
        yield Finding("cores", sight.host, (sight.rank,), f"cores {runs_of(mask)}", expected)
    elif len(mask) == 1 and count > 1 and len(parse_cores(sight.online)) > 1:
        found = f"one core, {runs_of(mask)}"
        yield Finding("cores", sight.host, (sight.rank,), found, f"{count}, as the plan gives each rank,")


def _overlaps(of_node: Sequence[Sight], masks: Sequence[Cores], planned: Sequence[Cores | None]) -> Iterator[Finding]:
    """Ranks that share cores although somebody bound them. Equal masks are those of a start that binds nothing."""
    if len(set(masks)) == 1 or list(masks) == list(planned):
        return
    for sight, mask in zip(of_node, masks, strict=True):
        pairs = zip(of_node, masks, strict=True)
        others = [other.rank for other, its in pairs if other is not sight and mask & its]
        if others:
            found = f"cores {runs_of(mask)}, some of them also those of {name_ranks(others)}"
            yield Finding("cores", sight.host, (sight.rank,), found, "cores of its own, or no binding at all,")


def _near(sight: Sight, mask: Cores, spec: RunSpec, layout: ParallelLayout) -> Iterator[Finding]:
    """Whether the device hangs on a NUMA domain of the rank's cores, and on the one that the profile says."""
    if sight.device is None or sight.device.numa is None or str(sight.device.numa) not in sight.numa:
        return
    domain = sight.device.numa
    near = parse_cores(sight.numa[str(domain)])
    where = f"device {sight.device.address} on NUMA domain {domain}"
    if not mask & near:
        found = f"{where}, cores {runs_of(mask)}"
        yield Finding("NUMA domain", sight.host, (sight.rank,), found, f"cores of its domain, {runs_of(near)},")
    profile = spec.hardware.device_numa
    each_has_one = layout.ranks_per_node == spec.hardware.devices_per_node == len(profile)
    if each_has_one and profile[sight.local_rank] != domain:
        expected = f"domain {profile[sight.local_rank]}, as the profile {spec.hardware.name} has it,"
        yield Finding("NUMA domain", sight.host, (sight.rank,), where, expected)
