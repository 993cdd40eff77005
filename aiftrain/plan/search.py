"""Search: every layout that the engine can run on the given nodes, the best first, and why the others lose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from pydantic import Field

from aiftrain.errors import Problem
from aiftrain.plan.axes import with_axes
from aiftrain.plan.counts import counts, placed
from aiftrain.plan.layouts import RECOMPUTE, formed, layout_of, legal, micro_batches
from aiftrain.plan.memory import GIB, memory_per_rank
from aiftrain.plan.memory_use import MemoryUse
from aiftrain.plan.prediction import Rate, rate
from aiftrain.plan.room import MARGIN, has_room, memory
from aiftrain.plan.throughput.layer import UnknownFigure
from aiftrain.run.base import Strict
from aiftrain.run.layout import ParallelLayout, make_layout
from aiftrain.run.spec import Precision, RunSpec

_LARGEST_MICRO_BATCH = 4  # with other degrees of model parallelism: their products are long without more
_AS_FAST = 0.001  # a difference that no prediction can tell from none
_SPENT_ON = {  # the parts of a step, as the subject of "takes"
    "compute": "computation",
    "tensor": "tensor-parallel traffic",
    "pipeline": "the pipeline",
    "data": "exchanging gradients and weights",
    "optimizer": "the optimizer's step",
    "overhead": "launching and waiting",
}


class Candidate(Strict):
    """One layout of a run. It has no rate where it does not fit, or where a figure that it depends on is unknown.

    `why` it is not the best, or why it has no rate; empty for a best one that has.
    """

    spec: RunSpec = Field(exclude=True, repr=False)  # the run in this form
    layout: ParallelLayout
    memory: MemoryUse
    fits: bool | None  # None: nobody documents the memory
    rate: Rate | None
    why: str = ""

    @property
    def strategy(self) -> str:
        """The strategy as parallelism=... names it, with the degrees of model parallelism that are not 1."""
        layout = self.layout
        degrees = {
            "tp": layout.tensor_parallel,
            "pp": layout.pipeline_parallel,
            "sp": layout.context_parallel,
            "ep": layout.expert_parallel,
            "group": layout.shard_group or 1,
        }
        name = f"zero{layout.zero_stage}" if layout.zero_stage else "ddp"
        return " ".join([name, *(f"{kind}{degree}" for kind, degree in degrees.items() if degree > 1)])

    def part_seconds(self) -> dict[str, float]:
        """Seconds of a step, by what they are spent on; none without a rate."""
        return (
            {name: share * self.rate.seconds_per_step for name, share in self.rate.parts.items()} if self.rate else {}
        )


def judge(spec: RunSpec, precision: Precision, *, axes: bool = False) -> list[Candidate]:
    """Every legal layout on the spec's nodes, the best first; none where the batch cannot be shared out.

    axes: with other degrees of model parallelism as well; without, in a tenth of the time, those of the spec alone.

    First those that fit, the fastest first; of equally fast ones that with the lowest ZeRO stage, which exchanges
    least, then that with the least memory. Where speed or memory is unknown, those nearest to what was asked for.
    Last those that do not fit, the smallest first.
    """
    found = [_candidate(form, precision) for form in legal(spec)]
    if axes:
        found += [candidate for form in with_axes(spec) for candidate in _roomiest_forms(form, precision)]
    candidates = sorted(found, key=_order(spec))
    return [candidate.model_copy(update={"why": _why(candidate, candidates[0])}) for candidate in candidates]


def best(spec: RunSpec, precision: Precision) -> RunSpec | Problem:
    """The spec in its best form, or why it has none and what would help."""
    return best_of(judge(spec, precision, axes=True), spec, precision)


def best_of(candidates: Sequence[Candidate], spec: RunSpec, precision: Precision) -> RunSpec | Problem:
    """The same of what `judge` found."""
    if not candidates:
        return _cannot_share(spec)
    if candidates[0].fits is False:
        return _too_large(candidates[0], spec, precision)
    return candidates[0].spec


def has_roomy_form(spec: RunSpec, precision: Precision) -> bool:
    """Whether any layout on the spec's nodes fits; True where nobody documents the memory."""
    return any(has_room(form, memory(form, layout_of(form), precision)) is not False for form in legal(spec))


def gib_of(candidate: Candidate) -> str:
    """`71.2 GiB of 60.8`: what a layout needs, and what of a rank's memory is planned with."""
    have = memory_per_rank(candidate.spec)
    of = f" of {have * MARGIN / GIB:,.1f}" if have is not None else ""
    return f"{candidate.memory.total / GIB:,.1f} GiB{of}"


def _roomiest_forms(spec: RunSpec, precision: Precision) -> Iterator[Candidate]:
    """Of each micro-batch, a power of two, the form that computes least again, of those that fit; else the smallest."""
    for micro_batch in micro_batches(spec):
        if micro_batch > _LARGEST_MICRO_BATCH or micro_batch & (micro_batch - 1):
            continue
        forms = (formed(spec, spec.parallelism.stage, micro_batch, recompute) for recompute in RECOMPUTE)
        for form in forms:
            candidate = _candidate(form, precision)
            if candidate.fits is not False:
                break
        yield candidate


def _candidate(form: RunSpec, precision: Precision) -> Candidate:
    layout = layout_of(form)
    use = memory(form, layout, precision)
    fits = has_room(form, use)
    speed, why = None, ""
    if fits is not False:
        try:
            speed = rate(form, layout, precision)
        except UnknownFigure as unknown:
            why = str(unknown)
    return Candidate(spec=form, layout=layout, memory=use, fits=fits, rate=speed, why=why)


def _order(spec: RunSpec) -> Callable[[Candidate], tuple[float, ...]]:
    """The key that sorts candidates for `judge`."""
    train, asked = spec.train, spec.parallelism.ranks_of_a_model * spec.parallelism.expert

    def key(candidate: Candidate) -> tuple[float, ...]:
        layout, size = candidate.layout, candidate.memory.total
        if candidate.fits is False:
            return 2, size
        if candidate.fits and candidate.rate:
            return 0, candidate.rate.seconds_per_step, layout.zero_stage, _one_model(layout), size
        changes = (
            _one_model(layout) != asked,
            layout.micro_batch != train.micro_batch,
            layout.recompute != train.recompute,
            layout.zero_stage,
        )
        return 1, *changes, RECOMPUTE.index(layout.recompute), size

    return key


def _one_model(layout: ParallelLayout) -> int:
    return layout.tensor_parallel * layout.pipeline_parallel * layout.context_parallel * layout.expert_parallel


def _why(candidate: Candidate, winner: Candidate) -> str:
    if candidate.fits is False:
        return f"needs {gib_of(candidate)}"
    if candidate is winner or candidate.rate is None or winner.rate is None:
        return candidate.why
    slower = candidate.rate.seconds_per_step / winner.rate.seconds_per_step - 1
    if abs(slower) < _AS_FAST:
        higher = candidate.layout.zero_stage > winner.layout.zero_stage
        return f"as fast, and {'shares out more than it must' if higher else 'takes more memory'}"
    before = winner.part_seconds()
    more = {part: seconds - before[part] for part, seconds in candidate.part_seconds().items()}
    part = max(more, key=lambda name: more[name])
    return f"{_slower(slower)}: {_spent(part, candidate, winner)} takes {_seconds(more[part])} more a step"


def _spent(part: str, candidate: Candidate, winner: Candidate) -> str:
    """What the seconds of a part go to, where a layout spends more of them than the best one."""
    if part == "compute" and RECOMPUTE.index(candidate.layout.recompute) > RECOMPUTE.index(winner.layout.recompute):
        return "computing activations again"
    if part == "data" and candidate.layout.zero_stage == 3 > winner.layout.zero_stage:
        return "gathering weights"
    return _SPENT_ON[part]


def _slower(share: float) -> str:
    """`0.7% slower`, `28% slower`, `3.1 times as slow`."""
    if share >= 1:
        return f"{1 + share:.1f} times as slow"
    return f"{share:.0%} slower" if share >= 0.1 else f"{share:.1%} slower"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def _cannot_share(spec: RunSpec) -> Problem:
    """No micro-batch shares out the global batch: what is wrong with the smallest, and the numbers of nodes that do."""
    smallest = spec.model_copy(update={"train": spec.train.model_copy(update={"micro_batch": 1})})
    problem = make_layout(smallest)
    assert isinstance(problem, Problem)
    return Problem(problem.where, problem.found, " or ".join([*_near(spec), problem.fits]))


def _near(spec: RunSpec) -> Iterator[str]:
    """The next smaller and the next larger number of nodes that share out the global batch."""
    possible = counts(spec)
    yield from (f"nodes={nodes}" for nodes in [nodes for nodes in possible if nodes < spec.nodes][-1:])
    yield from (f"nodes={nodes}" for nodes in [nodes for nodes in possible if nodes > spec.nodes][:1])


def _too_large(smallest: Candidate, spec: RunSpec, precision: Precision) -> Problem:
    layout = smallest.layout
    form = f"{smallest.strategy}, micro-batch {layout.micro_batch}, {layout.recompute} recomputation"
    found = f"no layout fits: the smallest ({form}) needs {gib_of(smallest)} a rank on {spec.hardware.name}"
    more = (there for nodes in counts(spec) if nodes > spec.nodes and (there := placed(spec, nodes)) is not None)
    fitting = next(_roomy(more, precision), None)
    fits = f"nodes={fitting.nodes}" if fitting else "a device with more memory, shorter sequences, or a smaller model"
    return Problem("parallelism", found, fits)


def _roomy(specs: Iterable[RunSpec], precision: Precision) -> Iterator[RunSpec]:
    return (spec for spec in specs if has_roomy_form(spec, precision))
