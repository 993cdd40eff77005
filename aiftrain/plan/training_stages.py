"""What is wrong with the stages of a spec, and what is odd."""

from __future__ import annotations

from collections.abc import Iterator

from aiftrain.errors import Problem
from aiftrain.plan.groups import did_you_mean
from aiftrain.run.spec import RunSpec
from aiftrain.run.timeline import Phase
from aiftrain.run.training_stages import StageSpec


def stage_problems(spec: RunSpec) -> list[Problem]:
    """Stages out of order, unknown sources, sequences beyond the positions, a warm-up that cannot be."""
    problems = list(_warmup_problems(spec))
    for name, stage in spec.stages.items():
        problems += _order_problems(spec, name, stage)
        problems += _mixture_problems(spec, f"stages.{name}.weights", stage)
        problems += _position_problems(spec, f"stages.{name}", stage)
    return problems


def stage_warnings(spec: RunSpec) -> Iterator[str]:
    """Stages that the run does not come to."""
    reached = {phase.stage for phase, _ in spec.timeline.spans()}
    for name in spec.stages:
        if name not in reached:
            yield f"the run ends before stages.{name} begins"


def _warmup_problems(spec: RunSpec) -> Iterator[Problem]:
    warmup, full = spec.train.batch_warmup, spec.train.global_batch
    if warmup is None:
        return
    if warmup.start >= full:
        fits = f"less than train.global_batch={full}, or train.batch_warmup=null"
        yield Problem("train.batch_warmup.start", f"{warmup.start} sequences leave nothing to grow to", fits)
    elif (full - warmup.start) % warmup.increment:
        found = f"{warmup.increment} sequences do not lead from {warmup.start} to {full}"
        fits = f"a divisor of {full - warmup.start}"
        yield Problem("train.batch_warmup.increment", found, fits)


def _order_problems(spec: RunSpec, name: str, stage: StageSpec) -> Iterator[Problem]:
    """A stage that begins no later than what stands before it: an earlier stage, or the end of the batch's warm-up."""
    names = list(spec.stages)
    earlier = {other: spec.stages[other] for other in names[: names.index(name)]}
    last = spec.model_copy(update={"stages": earlier}).timeline.phases[-1]
    key, begin, behind = ("from_step", stage.from_step, last.first_step)
    if begin is None:
        key, begin, behind = ("from_tokens", stage.from_tokens, last.first_token)
    if begin is not None and begin <= behind:
        found = f"{begin:,}, but {_named(last)} at {behind:,}"
        yield Problem(f"stages.{name}.{key}", found, f"more than {behind:,}: stages stand in the order they begin in")


def _named(phase: Phase) -> str:
    return f"stages.{phase.stage} begins" if phase.stage else "the warm-up of the batch ends"


def _mixture_problems(spec: RunSpec, where: str, stage: StageSpec) -> Iterator[Problem]:
    sources, weights = list(spec.data.sources), stage.weights
    if weights is None:
        return
    for name in weights.keys() - sources:
        fits = f"{did_you_mean(name, sources)}there are: {', '.join(sources)}"
        yield Problem(f"{where}.{name}", "data.sources has no such source", fits)
    if not any(weights.values()):
        yield Problem(where, "every source has weight 0", "a weight for at least one of data.sources")


def _position_problems(spec: RunSpec, where: str, stage: StageSpec) -> Iterator[Problem]:
    """What the model's positions cannot do."""
    model, length = spec.model, stage.sequence_length
    if model.max_positions is not None and length is not None and length > model.max_positions:
        found = f"{length} is more than the {model.max_positions} of model.max_positions"
        yield Problem(f"{where}.sequence_length", found, f"at most {model.max_positions}")
    if stage.rope_theta is not None and model.positions != "rope":
        found = f"{stage.rope_theta:g}, but model.positions={model.positions} has no rotary base"
        yield Problem(f"{where}.rope_theta", found, "leave it out")
