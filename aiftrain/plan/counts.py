"""The numbers of nodes that a run can have at its site, and the queue that gives each of them."""

from __future__ import annotations

import math
from collections.abc import Iterator

from aiftrain.plan.limits import chosen_partition, chosen_qos, is_queued, job_limits
from aiftrain.run.layout import ranks_per_node
from aiftrain.run.spec import LauncherSpec, RunSpec


def counts(spec: RunSpec) -> list[int]:
    """All numbers of nodes whose ranks share out the global batch and that a queue of the site gives one job."""
    each = ranks_per_node(spec)
    batch = math.gcd(*(phase.global_batch for phase in spec.timeline.phases))
    shared = (ranks // each for ranks in _divisors(batch) if ranks % each == 0)
    return [nodes for nodes in shared if placed(spec, nodes) is not None]


def placed(spec: RunSpec, nodes: int) -> RunSpec | None:
    """`spec` on so many nodes, in its own queue or in a larger one of the site; None where no queue gives them.

    A queue that was asked for is kept.
    """
    own = spec.model_copy(update={"nodes": nodes})
    if _gives(own):
        return own
    if not is_queued(spec) or spec.launcher.partition or spec.launcher.qos:
        return None
    others = (own.model_copy(update={"launcher": launcher}) for launcher in _larger_queues(spec))
    return next(filter(_gives, others), None)


def queue_limits(spec: RunSpec) -> list[tuple[str, int]]:
    """The queues that `placed` chooses from, each with the most nodes it gives a job, where that is known."""
    own = chosen_qos(spec) if chosen_qos(spec) in spec.factory.qos else chosen_partition(spec)
    larger = [] if spec.launcher.partition or spec.launcher.qos else _larger_queues(spec)
    queues = [(own, spec.launcher), *((launcher.qos or launcher.partition, launcher) for launcher in larger)]
    limits = ((name, job_limits(spec.model_copy(update={"launcher": launcher})).max_nodes) for name, launcher in queues)
    return [(name, most) for name, most in limits if name and most]


def queue_words(spec: RunSpec) -> list[str]:
    """The overrides that choose the spec's queue; none for the site's default."""
    keys = {"launcher.partition": spec.launcher.partition, "launcher.qos": spec.launcher.qos}
    return [f"{key}={name}" for key, name in keys.items() if name]


def _gives(spec: RunSpec) -> bool:
    """Whether the spec's queue gives one job its nodes."""
    if not is_queued(spec):
        return spec.nodes == 1
    limits = job_limits(spec)
    return (limits.min_nodes or 1) <= spec.nodes and (limits.max_nodes is None or spec.nodes <= limits.max_nodes)


def _larger_queues(spec: RunSpec) -> Iterator[LauncherSpec]:
    """Qualities of service and partitions with more nodes a job than the default: the others may be other nodes."""
    most = job_limits(spec).max_nodes or 0
    for kind, queues in (("qos", spec.factory.qos), ("partition", spec.factory.partitions)):
        for name, queue in queues.items():
            if (queue.max_nodes or 0) > most:
                yield spec.launcher.model_copy(update={kind: name})


def _divisors(number: int) -> list[int]:
    small = [divisor for divisor in range(1, int(number**0.5) + 1) if number % divisor == 0]
    return sorted({*small, *(number // divisor for divisor in small)})
