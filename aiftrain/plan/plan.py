"""The plan: what follows from a RunSpec before anything runs, or all the reasons why it cannot run."""

from __future__ import annotations

from aiftrain.errors import ConfigError, Problem
from aiftrain.plan.advice import cannot_run_here, memory_problem
from aiftrain.plan.estimate import Estimate, estimate
from aiftrain.plan.limits import launch_problems, site_problems
from aiftrain.plan.memory import choose_precision
from aiftrain.run.base import Strict
from aiftrain.run.layout import Execution, make_layout
from aiftrain.run.spec import Precision, RunSpec


class LaunchPlan(Strict):
    """plan.json. A rank reads `execution`; `estimate` is for people."""

    execution: Execution
    estimate: Estimate


def make_plan(spec: RunSpec, *, to_launch: bool = False, precision: Precision | None = None) -> LaunchPlan:
    """The plan of `spec`. Raises ConfigError with everything that stands against it.

    With `to_launch` that includes what a plan can do without: an account, data.root, a site in operation.
    `precision` is what a run that goes on began with; otherwise the spec and the hardware decide.
    """
    problems = launch_problems(spec) if to_launch else []
    layout = make_layout(spec)
    precision = precision or choose_precision(spec)
    foreign = cannot_run_here(spec, precision)
    if foreign is not None:
        raise ConfigError([foreign])
    problems += site_problems(spec)
    if isinstance(layout, Problem):
        problems.append(layout)
    too_large = memory_problem(spec, precision)
    problems += [too_large] if too_large else []
    if problems or isinstance(layout, Problem):
        raise ConfigError(problems)
    return LaunchPlan(execution=Execution(layout=layout, precision=precision), estimate=estimate(spec, precision))
