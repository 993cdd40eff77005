"""What a person is asked before jobs are submitted: whether they may cost so much, and wait for what is down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aiftrain.errors import UserError
from aiftrain.plan.limits import seconds_of, time_limit
from aiftrain.plan.plan import LaunchPlan
from aiftrain.run.spec import RunSpec


@dataclass(frozen=True)
class Cost:
    """The most that one job may take: `nodes` for all of its `time`; `billed` in the site's own units, if known."""

    nodes: int
    time: str
    billed: float | None
    unit: str
    account: str

    @property
    def node_hours(self) -> float:
        return self.nodes * (seconds_of(self.time) or 0) / 3600

    def __str__(self) -> str:
        return f"{_count(self.nodes, 'node')} for {self.time}: up to {amounts([self])}"


def cost_of_job(spec: RunSpec, plan: LaunchPlan) -> Cost | None:
    """None where its time is unknown."""
    limit, estimate = time_limit(spec), plan.estimate
    if not limit or not seconds_of(limit):
        return None
    return Cost(spec.nodes, limit, estimate.billed_at_most, estimate.billing_unit or "", spec.account or "")


def amounts(costs: Sequence[Cost]) -> str:
    """What jobs take together: `192 node-hours, 768 GPU-hours of project_1`."""
    words = [_count(sum(cost.node_hours for cost in costs), "node-hour")]
    for unit in dict.fromkeys(cost.unit for cost in costs):
        billed = [cost.billed for cost in costs if cost.unit == unit]
        words += [_count(sum(filter(None, billed)), unit)] if unit and None not in billed else []
    accounts = " and ".join(dict.fromkeys(cost.account for cost in costs if cost.account))
    return ", ".join(words) + (f" of {accounts}" if accounts else "")


def total_cost(costs: Sequence[Cost]) -> str:
    """In words, of one job or of several."""
    return str(costs[0]) if len(costs) == 1 else f"{len(costs)} jobs: up to {amounts(costs)}"


def wants_a_yes(jobs: Iterable[tuple[RunSpec, LaunchPlan]]) -> str | None:
    """The cost of all jobs in words, where together they are above `launcher.confirm_above`."""
    known = [(spec.launcher.confirm_above, cost) for spec, plan in jobs if (cost := cost_of_job(spec, plan))]
    limits = [most for most, _ in known if most is not None]
    costs = [cost for _, cost in known]
    if not limits or sum(cost.node_hours for cost in costs) <= min(limits):
        return None
    return f"{total_cost(costs)}, and launcher.confirm_above is {min(limits):,.10g} node-hours"


def refuse_unconfirmed(reasons: Iterable[str]) -> UserError:
    return UserError(f"not submitted: {'; '.join(reasons)}. To submit it all the same, say --yes")


def _count(number: float, noun: str) -> str:
    """`1 node`, `0.667 node-hours`, `1,024 nodes`."""
    return f"{number:,.0f} {noun}s" if number >= 10 else f"{number:.3g} {noun}{'' if number == 1 else 's'}"
