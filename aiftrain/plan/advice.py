"""A run too large for where it would go: both numbers, and what would fit, computed and not guessed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from aiftrain.errors import Problem
from aiftrain.plan.groups import Groups
from aiftrain.plan.limits import chosen_partition, data_problems
from aiftrain.plan.memory import GIB, choose_precision, host_bytes, memory_per_rank, states_of
from aiftrain.plan.node import at_site
from aiftrain.plan.pipeline import zero_stages
from aiftrain.run.layout import ParallelLayout, make_layout, ranks_per_node
from aiftrain.run.machine import Factory, Hardware
from aiftrain.run.spec import Precision, RunSpec

_SHOWN = 2  # factories whose commands are spelled out
_MOST_NODES = 1024  # how far the search for a fitting number of nodes goes where the site states no limit


def memory_problem(spec: RunSpec, precision: Precision) -> Problem | None:
    """Refuses a run whose model states alone exceed what one rank has."""
    have, need = memory_per_rank(spec), states_of(spec, precision).total
    if have is None or need <= have:
        return None
    each = ranks_per_node(spec)
    ranks = f"{spec.nodes * each:,} ranks ({spec.nodes:,} nodes x {each})"
    found = f"model states take {_gib(need)} on each of {ranks}, and each has {_gib(have)} on {spec.hardware.name}"
    return Problem(f"parallelism={spec.parallelism.name}", found, _what_fits(spec, precision, have))


def host_problem(spec: RunSpec, precision: Precision) -> Problem | None:
    """Refuses a run whose offloaded states exceed the memory of its nodes."""
    have, each = spec.hardware.node_memory_gib, ranks_per_node(spec)
    need = host_bytes(spec, precision) * each
    if have is None or need <= have * GIB:
        return None
    found = f"the offloaded states of {each} ranks take {_gib(need)}, and a node has {_gib(int(have * GIB))}"
    return Problem(f"parallelism={spec.parallelism.name}", found, "more nodes, or parallelism.offload_optimizer=none")


def cannot_run_here(spec: RunSpec, precision: Precision) -> Problem | None:
    """Refuses a run made for a large machine that would start right here, and says where it would go."""
    if spec.factory.scheduler != "none" or spec.launcher.name != "local":
        return None
    have, need = memory_per_rank(spec), states_of(spec, precision, nodes=1).total
    if spec.nodes == 1 and (have is None or need <= have):
        return None
    found = f"{spec.recipe} cannot run here\n      needs: {_needs(spec, need)}\n      here:  {_here(spec, have)}"
    return Problem("recipe", found, "what would work:\n        " + "\n        ".join(_commands(spec)))


def smallest_fit(spec: RunSpec, most: int) -> int | None:
    """The smallest number of nodes, up to `most`, that hold the model states and can share out the batch."""
    return next((nodes for nodes in range(1, most + 1) if _fits(spec.model_copy(update={"nodes": nodes}))), None)


def _fits(spec: RunSpec) -> bool:
    have = memory_per_rank(spec)
    needed = states_of(spec, choose_precision(spec)).total
    return have is not None and needed <= have and isinstance(make_layout(spec), ParallelLayout)


def _what_fits(spec: RunSpec, precision: Precision, have: int) -> str:
    """A higher ZeRO stage, or more nodes."""
    ways = []
    for stage in zero_stages(spec)[spec.parallelism.stage + 1 :]:
        need = states_of(spec, precision, stage=stage).total
        if need <= have:
            ways.append(f"parallelism=zero{stage} ({_gib(need)})")
            break
    nodes = smallest_fit(spec, _most_nodes(spec.factory, chosen_partition(spec)))
    ways += [f"nodes={nodes}"] if nodes else []
    return " or ".join(ways) or f"a smaller model: this one has {spec.model.parameters:,} parameters"


def _commands(spec: RunSpec) -> Iterator[str]:
    """Commands that start this run here in another form, start or price it elsewhere, or train something small."""
    start = f"python -m aiftrain recipe={spec.recipe}"
    here = spec.model_copy(update={"nodes": 1})
    if _fits(here):
        yield f"{start} nodes=1"
    sites = _sites(spec)
    for factory, nodes in sites[:_SHOWN]:
        account = " account=<yours>" if factory.account_required else ""
        corpus = " data.root=<folder>" if data_problems(spec) else ""
        yield f"{start} factory={factory.name} nodes={nodes}{account}{corpus}"
        yield f"python -m aiftrain plan recipe={spec.recipe} factory={factory.name} nodes={nodes}"
    if others := ", ".join(factory.name for factory, _ in sites[_SHOWN:]):
        yield from textwrap.wrap(f"or another factory that holds it: {others}", 100, break_on_hyphens=False)
    if spec.recipe != "smoke":
        yield "python -m aiftrain recipe=smoke"


def _sites(spec: RunSpec) -> list[tuple[Factory, int]]:
    """The factories that hold the run and on how many nodes: first those that hold it as asked, the largest first."""
    groups = Groups()
    factories = (Factory.model_validate(groups.read("factory", name)) for name in groups.choices("factory"))
    sites = [(factory, nodes) for factory in factories if (nodes := _nodes_on(spec, factory, groups))]
    return sorted(sites, key=lambda site: (site[1] != spec.nodes, -(site[0].nodes_total or 0)))


def _nodes_on(spec: RunSpec, factory: Factory, groups: Groups) -> int | None:
    """As many nodes as were asked for where that fits there, else the fewest that do; None where none do."""
    name = groups.default("factory", factory.name, "hardware")
    takes_jobs = factory.scheduler == "slurm" and factory.status == "operational" and factory.partition is not None
    if name is None or not takes_jobs:
        return None
    nodes = at_site(groups.read("hardware", name), groups.read("factory", factory.name))
    if nodes["kind"] == "cpu":
        return None
    hardware = Hardware.model_validate(nodes)
    there = spec.model_copy(update={"factory": factory, "hardware": hardware})
    most = _most_nodes(factory, factory.partition)
    return spec.nodes if spec.nodes <= most and _fits(there) else smallest_fit(there, most)


def _most_nodes(factory: Factory, partition: str | None) -> int:
    limit = factory.partitions[partition].max_nodes if partition in factory.partitions else None
    return min(limit or factory.nodes_total or _MOST_NODES, _MOST_NODES)


def _needs(spec: RunSpec, need: int) -> str:
    nodes = f"; it asks for {spec.nodes} nodes" if spec.nodes > 1 else ""
    millions = f"{spec.model.parameters / 1e6:,.0f} million parameters"
    return f"{_gib(need)} a rank for the states of {millions} on one node{nodes}"


def _here(spec: RunSpec, have: int | None) -> str:
    hardware = spec.hardware
    cores = f"{hardware.usable_cores_per_node} cores, " if hardware.usable_cores_per_node else ""
    memory = f"{_gib(have)} a rank" if have is not None else "memory unknown"
    return f"1 node ({hardware.title}), {cores}{memory}, no scheduler"


def _gib(size: int) -> str:
    return f"{size / GIB:,.1f} GiB"
