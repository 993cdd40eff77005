"""The plan: what follows from a RunSpec before anything runs, or all the reasons why it cannot run."""

from __future__ import annotations

from aiftrain.errors import ConfigError, Problem
from aiftrain.plan.advice import cannot_run_here, host_problem, memory_problem
from aiftrain.plan.estimate import Estimate, estimate
from aiftrain.plan.init_from import init_problems
from aiftrain.plan.legality import layout_problems
from aiftrain.plan.limits import launch_problems, precision_problems, site_problems
from aiftrain.plan.memory import choose_precision
from aiftrain.plan.pipeline import pipeline_warnings
from aiftrain.plan.prediction import Prediction, predict
from aiftrain.plan.state_copy import StateCopy, state_copy
from aiftrain.plan.traffic import Traffic, traffic
from aiftrain.plan.training_stages import stage_problems
from aiftrain.run.base import Strict
from aiftrain.run.layout import Execution, make_layout, sharing_problems
from aiftrain.run.residency import policy_problems
from aiftrain.run.spec import Precision, RunSpec


class LaunchPlan(Strict):
    """plan.json. A rank reads `execution`; the rest is for people: what follows for certain, and what is predicted."""

    execution: Execution
    estimate: Estimate
    traffic: Traffic
    prediction: Prediction
    state_copy: StateCopy | None = None  # where checkpoints are written beside the training

    @property
    def assumptions(self) -> tuple[str, ...]:
        return self.estimate.assumptions + self.prediction.assumptions

    @property
    def unknowns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.estimate.unknowns + self.prediction.unknowns))

    @property
    def warnings(self) -> tuple[str, ...]:
        of_copy = self.state_copy.warnings if self.state_copy else ()
        pipeline = pipeline_warnings(self.execution.layout)
        return (*self.estimate.warnings, *self.prediction.warnings, *of_copy, *pipeline)


def make_plan(spec: RunSpec, *, to_launch: bool = False, precision: Precision | None = None) -> LaunchPlan:
    """The plan of `spec`. Raises ConfigError with everything that stands against it.

    With `to_launch` that includes what a plan can do without: an account, data.root, a site in operation.
    `precision` is what a run that goes on began with; otherwise the spec and the hardware decide.
    """
    problems = (launch_problems(spec) if to_launch else []) + stage_problems(spec)
    if problems and spec.stages:
        raise ConfigError(problems)  # the rest of the plan rests on them
    precision = precision or choose_precision(spec)
    spec = decided(spec, precision)
    layout = make_layout(spec)
    foreign = cannot_run_here(spec, precision)
    if foreign is not None:
        raise ConfigError([foreign])
    problems += layout_problems(spec) + site_problems(spec) + precision_problems(spec, precision)
    problems += [*sharing_problems(spec), *init_problems(spec), *policy_problems(spec)]
    too_large = (memory_problem(spec, precision), host_problem(spec, precision))
    problems += [problem for problem in too_large if problem]
    if problems or isinstance(layout, Problem):
        raise ConfigError(problems)
    prediction = predict(spec, layout, precision)
    return LaunchPlan(
        execution=Execution(layout=layout, precision=precision),
        estimate=estimate(spec, precision),
        traffic=traffic(spec, layout, precision),
        prediction=prediction,
        state_copy=state_copy(spec, prediction.memory, precision),
    )


def decided(spec: RunSpec, precision: Precision) -> RunSpec:
    """`spec` with the layout that `parallelism=auto` leaves to the planner. Raises ConfigError where none fits."""
    if spec.parallelism.zero_stage is not None:
        return spec
    from aiftrain.plan.search import best

    found = best(spec, precision)
    if isinstance(found, Problem):
        raise ConfigError([found])
    return found
