"""What `bench` is to do on a machine: the run in whose place it goes there, and a training step of each strategy."""

from __future__ import annotations

from typing import Any

from aiftrain.errors import ConfigError, Problem
from aiftrain.plan.compose import compose
from aiftrain.plan.engine_config import deepspeed_config
from aiftrain.plan.estimate import estimate
from aiftrain.plan.groups import AUTO, RECIPE, Groups, did_you_mean
from aiftrain.plan.limits import admission_problems, is_queued, site_problems
from aiftrain.plan.memory import choose_precision
from aiftrain.plan.overrides import own_groups, parse
from aiftrain.plan.plan import LaunchPlan, make_plan
from aiftrain.plan.prediction import predict
from aiftrain.plan.spec import validate
from aiftrain.plan.traffic import traffic
from aiftrain.run.bench import Cases, Missing, StepCase
from aiftrain.run.layout import Execution, ParallelLayout, make_layout, ranks_per_node
from aiftrain.run.spec import RunSpec

DEFAULT_RECIPE = "smoke"
_GROUP = "parallelism"
_START_SECONDS = 600  # of a job's time, besides the measurements
_STEPS = 10  # what the spec says; bench.seconds decides how many are made


def bench_spec(overrides: list[str], run_dir: str) -> tuple[RunSpec, Cases]:
    """The run that `overrides` describe, cut down to a bench, and the steps to be timed; without a recipe it is smoke.

    Raises ConfigError with everything that stands against it.
    """
    parsed = parse(overrides)
    if not any(override.key_or_group == RECIPE for override in parsed):
        overrides = [f"{RECIPE}={DEFAULT_RECIPE}", *overrides]
    groups = own_groups(parsed)
    spec = _cut(validate(compose(overrides)), run_dir)
    problems = admission_problems(spec) + site_problems(spec) + _unknown_strategies(spec, groups)
    if problems:
        raise ConfigError(problems)
    cases = _cases(spec, groups)
    return _with(spec, parallelism=_strategies(spec, groups)["ddp"]), cases


def bench_plan(spec: RunSpec) -> LaunchPlan:
    """The plan of a bench: no model has to fit, for steps that do not are left out."""
    precision, layout = choose_precision(spec), make_layout(spec)
    assert isinstance(layout, ParallelLayout), "its batch is a micro-batch of each rank"
    return LaunchPlan(
        execution=Execution(layout=layout, precision=precision),
        estimate=estimate(spec, precision),
        traffic=traffic(spec, layout, precision),
        prediction=predict(spec, layout, precision),
    )


def _cut(spec: RunSpec, run_dir: str) -> RunSpec:
    """A few layers, a micro-batch of each rank a step, and the time of a job from what is to be measured."""
    train = {
        "steps": _STEPS,
        "tokens": None,
        "global_batch": spec.nodes * ranks_per_node(spec) * spec.train.micro_batch,
    }
    minutes = -(-int(spec.bench.seconds + _START_SECONDS) // 60)
    return _with(
        spec,
        purpose="bench",
        run_dir=spec.run_dir or run_dir,
        time=spec.time or (str(minutes) if is_queued(spec) else None),
        train=train,
        model={"num_layers": min(spec.model.num_layers, spec.bench.layers), "published_parameters": None},
        launcher={"chain": "none"},
        tracking={"wandb": "off"},
    )


def _with(spec: RunSpec, **changes: Any) -> RunSpec:
    """`spec` with other values, of whole sections or of some keys in them. Raises ConfigError."""
    document = spec.model_dump(mode="json")
    for key, value in changes.items():
        keeps = isinstance(value, dict) and key != _GROUP  # a strategy is taken whole
        document[key] = {**document[key], **value} if keeps else value
    return validate(document)


def _strategies(spec: RunSpec, groups: Groups) -> dict[str, dict[str, Any]]:
    """Every choice of `parallelism` but the one that leaves it to the planner; what was typed of one is kept."""
    typed = spec.parallelism.model_dump(mode="json")
    names = [name for name in groups.choices(_GROUP) if name != AUTO]
    return {name: typed if name == typed["name"] else groups.read(_GROUP, name) for name in names}


def _unknown_strategies(spec: RunSpec, groups: Groups) -> list[Problem]:
    names = list(_strategies(spec, groups))
    unknown = [name for name in spec.bench.strategies or () if name not in names]
    fits = f"there are: {', '.join(names)}"
    return [Problem("bench.strategies", f"there is no '{name}'", did_you_mean(name, names) + fits) for name in unknown]


def _cases(spec: RunSpec, groups: Groups) -> Cases:
    """A step of each strategy that can be run, and why the others cannot."""
    cases, missing = [], []
    for name, parallelism in _strategies(spec, groups).items():
        if spec.bench.strategies is not None and name not in spec.bench.strategies:
            continue
        try:
            cases.append(_case(spec, parallelism))
        except ConfigError as error:
            why = "; ".join(f"{problem.where}: {problem.found}" for problem in error.problems)
            missing.append(Missing(what=f"a step of {name}", why=why))
    return Cases(cases=tuple(cases), missing=tuple(missing))


def _case(spec: RunSpec, parallelism: dict[str, Any]) -> StepCase:
    """Raises ConfigError where the strategy lacks a value, or cannot be run."""
    lacking = [key for key, value in parallelism.items() if value == "???"]
    if lacking:
        raise ConfigError([Problem(f"{_GROUP}.{key}", "has no value", f"{_GROUP}.{key}=...") for key in lacking])
    there = _with(spec, parallelism=parallelism)
    execution = make_plan(there).execution
    config = deepspeed_config(there, execution.layout, execution.precision)
    return StepCase(strategy=there.parallelism.name, spec=there, execution=execution, deepspeed=config)
