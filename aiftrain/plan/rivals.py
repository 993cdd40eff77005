"""Why the other layouts lose: for each choice that the best one does not make, the best that could be had with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from aiftrain.plan.memory import GIB, memory_per_rank
from aiftrain.plan.room import MARGIN
from aiftrain.plan.search import Candidate
from aiftrain.run.base import Strict

_MOST_RIVALS = 4  # of one aspect that fit: those nearest to the best
_ASPECTS: tuple[Callable[[Candidate], str], ...] = (
    lambda candidate: candidate.strategy,
    lambda candidate: f"micro-batch {candidate.layout.micro_batch}",
    lambda candidate: f"{candidate.layout.recompute} recomputation".replace("none", "no"),
)


class Rival(Strict):
    """Choices that the best layout does not make, such as zero3, and why the best layout with them loses."""

    choices: tuple[str, ...]
    why: str


def rivals(candidates: Sequence[Candidate]) -> list[Rival]:
    """The rivals of the first of `candidates`, which are in the order of `judge`, aspect by aspect.

    What is unknown of the first as well is no reason.
    """
    found = (rival for aspect in _ASPECTS for rival in _of(aspect, candidates))
    return [rival for rival in found if rival.why != candidates[0].why]


def front_runners(candidates: Sequence[Candidate], most: int) -> list[Candidate]:
    """The best few that fit, of each strategy and mode of recomputation the best one."""
    first: dict[tuple[str, str], Candidate] = {}
    for candidate in candidates:
        if candidate.fits is not False:
            first.setdefault((candidate.strategy, candidate.layout.recompute), candidate)
    return list(first.values())[:most]


def _of(aspect: Callable[[Candidate], str], candidates: Sequence[Candidate]) -> Iterator[Rival]:
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(aspect(candidate), []).append(candidate)
    groups.pop(aspect(candidates[0]))
    fitting = {choice: group[0] for choice, group in groups.items() if group[0].fits is not False}
    for choice, leading in list(fitting.items())[:_MOST_RIVALS]:
        yield Rival(choices=(choice,), why=leading.why)
    too_large = {choice: group for choice, group in groups.items() if choice not in fitting}
    if too_large:
        members = (candidate for group in too_large.values() for candidate in group)
        yield Rival(choices=tuple(sorted(too_large, key=_by_number)), why=_does_not_fit(members))


def _does_not_fit(candidates: Iterable[Candidate]) -> str:
    together = list(candidates)
    sizes = [candidate.memory.total / GIB for candidate in together]
    usable = (memory_per_rank(together[0].spec) or 0) * MARGIN / GIB
    span = f"{min(sizes):,.0f} to {max(sizes):,.0f}" if len(sizes) > 1 else f"{sizes[0]:,.0f}"
    return f"no form fits: {span} GiB of {usable:,.1f}"


def _by_number(choice: str) -> tuple[int, str]:
    """`micro-batch 12` after `micro-batch 8`."""
    number = choice.rpartition(" ")[2]
    return (int(number) if number.isdigit() else 0, choice)
