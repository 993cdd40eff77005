"""How many nodes: each number that the site gives one job, with its best layout, and the one that meets a goal."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from pydantic import Field

from aiftrain.errors import ConfigError, UserError
from aiftrain.plan.bill import Bill
from aiftrain.plan.cost import Cost
from aiftrain.plan.counts import counts, placed
from aiftrain.plan.energy import Energy
from aiftrain.plan.prediction import Prediction, predict
from aiftrain.plan.search import Candidate, gib_of, judge
from aiftrain.run.base import Strict
from aiftrain.run.spec import Precision, RunSpec


@dataclass(frozen=True)
class Goal:
    """What a number of nodes must meet: one of a deadline in days, a budget in the site's units, the lowest bill."""

    deadline: float | None = None
    budget: float | None = None
    cheapest: bool = False

    def __bool__(self) -> bool:
        return self.deadline is not None or self.budget is not None or self.cheapest


class Option(Strict):
    """A number of nodes with its best layout. `lacking` is why it has no price: it does not fit, or is unknown."""

    spec: RunSpec = Field(exclude=True, repr=False)
    nodes: int
    candidate: Candidate
    prediction: Prediction | None
    lacking: str

    @property
    def days(self) -> float:
        """Expected days on the calendar, with the queue where it is known. Only of an option that has a price."""
        calendar = self._priced.calendar
        return calendar.days + (calendar.queue_days or 0)

    @property
    def slowest(self) -> float:
        """The same at the slow end of the range."""
        assert self.prediction is not None and self.prediction.days_high is not None
        return self.days - self._priced.calendar.days + self.prediction.days_high

    @property
    def quickest(self) -> float:
        """The same at the fast end of the range."""
        assert self.prediction is not None and self.prediction.days_low is not None
        return self.days - self._priced.calendar.days + self.prediction.days_low

    @property
    def bill(self) -> Bill:
        return self._priced.bill

    @property
    def energy(self) -> Energy:
        return self._priced.energy

    @property
    def units(self) -> float:
        """The bill in the site's units, or in node-hours where nobody documents how the site bills."""
        return self.bill.node_hours if self.bill.units is None else self.bill.units

    @property
    def unit(self) -> str:
        return self.bill.unit or "node-hour"

    def meets(self, deadline: float) -> bool:
        """Whether it has a price, and takes so many days or less."""
        return self.prediction is not None and self.days <= deadline

    @property
    def _priced(self) -> Cost:
        assert self.prediction is not None and self.prediction.cost is not None
        return self.prediction.cost


def options(spec: RunSpec, precision: Precision) -> list[Option]:
    """Every number of nodes that the site gives one job and that shares out the global batch, the smallest first."""
    sites = (placed(spec, nodes) for nodes in counts(spec))
    judged = ((there, judge(there, precision)) for there in sites if there is not None)
    return [priced(candidates[0], precision) for _, candidates in judged if candidates]


def option(spec: RunSpec, precision: Precision) -> Option | None:
    """The best on the spec's own nodes; None where they cannot share out the global batch."""
    candidates = judge(spec, precision)
    return priced(candidates[0], precision) if candidates else None


def fewest(spec: RunSpec, precision: Precision, deadline: float) -> Option:
    """The fewest nodes that meet a deadline, or the most there are, without a price for each number between.

    More nodes are taken to be never slower. Raises UserError where no number of nodes shares out the global batch.
    """
    possible = [there for nodes in counts(spec) if (there := placed(spec, nodes)) is not None]
    if not possible:
        raise UserError(_none_can(()))
    judged = cache(lambda place: priced(judge(possible[place], precision)[0], precision))
    places = range(len(possible) - 1)
    found: Option = judged(bisect_left(places, True, key=lambda place: judged(place).meets(deadline)))
    return found


def meet(goal: Goal, among: Sequence[Option]) -> Option:
    """The fewest nodes that meet the deadline, the fastest within the budget, or the cheapest while the grant lasts.

    Raises UserError where none does, with the closest and what it would take.
    """
    site = among[0].spec.factory if among else None
    if goal.budget is not None and site is not None and site.billing is None:
        raise UserError(f"--budget: nobody documents how {site.name} bills; --deadline DAYS or --cheapest works")
    able = [one for one in among if one.prediction is not None]
    if not able:
        raise UserError(_none_can(among))
    if goal.cheapest:
        return _cheapest(able)
    found = _in_time(goal.deadline, able) if goal.deadline is not None else _affordable(goal.budget or 0.0, able)
    if found is None:
        raise UserError(_missed(goal, able, among[-1].nodes) + _unsaid(among))
    return found


def priced(candidate: Candidate, precision: Precision) -> Option:
    """A layout with its price, or why it has none."""
    prediction, lacking = None, candidate.why
    if candidate.rate is not None:
        try:
            prediction = predict(candidate.spec, candidate.layout, precision)
        except ConfigError as error:
            lacking = "; ".join(f"{problem.found}; {problem.fits}" for problem in error.problems)
    elif candidate.fits is False:
        lacking = f"no layout fits: the smallest needs {gib_of(candidate)}"
    return Option(
        spec=candidate.spec,
        nodes=candidate.spec.nodes,
        candidate=candidate,
        prediction=prediction,
        lacking=lacking,
    )


def _in_time(deadline: float, able: Sequence[Option]) -> Option | None:
    return min((one for one in able if one.meets(deadline)), key=lambda one: one.nodes, default=None)


def _affordable(budget: float, able: Sequence[Option]) -> Option | None:
    return min((one for one in able if one.units <= budget), key=lambda one: one.days, default=None)


def _cheapest(able: Sequence[Option]) -> Option:
    """Fewer nodes are nearly always cheaper, so that how long the grant lasts decides, where that is known."""
    lasting = able[0].spec.access.days
    in_time = [one for one in able if lasting is None or one.meets(lasting)]
    return min(in_time, key=lambda one: (one.units, one.days)) if in_time else min(able, key=lambda one: one.days)


def _missed(goal: Goal, able: Sequence[Option], most: int) -> str:
    """That nothing meets a goal, what comes closest, and what it would take."""
    if goal.deadline is not None:
        closest = min(able, key=lambda one: one.days)
        aim = f"{goal.deadline:g} days"
        ways = [f"--deadline {math.ceil(10 * closest.days) / 10:g}", "another site: plan --compare all --deadline DAYS"]
        ways += ["a larger train.global_batch, for more nodes"] if closest.nodes == most else []
    else:
        closest = min(able, key=lambda one: one.units)
        aim = f"{goal.budget:,.0f} {closest.unit}s"
        ways = [f"--budget {math.ceil(closest.units)}", "fewer train.tokens", "a smaller model"]
    site = closest.spec.factory.name
    return (
        f"no number of nodes on {site} is known to take {aim} or less\n"
        f"      closest: {_summary(closest)}\n      what would do: {'; '.join(ways)}"
    )


def _unsaid(among: Sequence[Option]) -> str:
    """Of how many numbers of nodes that hold the run nothing can be said, and why."""
    unknown = [one for one in among if one.prediction is None and one.candidate.fits is not False]
    if not unknown:
        return ""
    return f"\n      of {len(unknown)} other numbers of nodes nothing can be said: {unknown[-1].lacking}"


def _summary(one: Option) -> str:
    span = f"{one.quickest:,.1f} to {one.slowest:,.1f}"
    return f"nodes={one.nodes}: {one.days:,.1f} days ({span}), {one.units:,.0f} {one.unit}s"


def _none_can(among: Sequence[Option]) -> str:
    if not among:
        return "no number of nodes that the site gives one job shares out train.global_batch: choose another one"
    last = among[-1]
    return f"nothing can be said of any number of nodes on {last.spec.factory.name}: {last.lacking}"
