"""`plan --search`: every layout on the given nodes, or every number of nodes, the best and why the others lose."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from aiftrain.cli import output
from aiftrain.cli.planning import amount, short, short_span, span
from aiftrain.errors import EXIT_OK, ConfigError, Problem
from aiftrain.run.spec import Precision, RunSpec

if TYPE_CHECKING:
    from rich.console import Console

    from aiftrain.plan.nodes import Goal, Option
    from aiftrain.plan.rivals import Rival
    from aiftrain.plan.search import Candidate
    from aiftrain.plan.sensitivity import Influence

_SHOWN = 5  # layouts in the table
_SEEN = 0.0005  # a smaller effect would read 0.0%
# The keys that a search decides, and those that one over nodes decides besides.
_SEARCHED = ("parallelism", "train.micro_batch", "train.recompute", "train.recompute_every")
_NODES = ("nodes", "launcher.partition", "launcher.qos")


def run(options: argparse.Namespace) -> int:
    """Search, print, and draw where that was asked for."""
    from aiftrain.plan.memory import choose_precision
    from aiftrain.plan.nodes import Goal, meet
    from aiftrain.plan.nodes import options as on_all_nodes
    from aiftrain.plan.search import judge
    from aiftrain.plan.spec import resolve

    goal = Goal(options.deadline, options.budget, options.cheapest)
    spec = resolve(options.overrides)
    precision = choose_precision(spec)
    _refuse(spec, precision, any_nodes=bool(goal))
    by_nodes = on_all_nodes(spec, precision) if goal or options.picture else []
    if goal:
        spec = meet(goal, by_nodes).spec
    candidates = judge(spec, precision, axes=True)
    _refuse_too_large(spec, precision, candidates)
    found = _Findings(candidates, precision, by_nodes, goal, _command(options.overrides, candidates[0], spec, goal))
    if options.json:
        output.print_json(found.as_document())
    else:
        found.show(spec, output.console())
    if options.picture:
        _draw(spec, by_nodes, options)
    return EXIT_OK


class _Findings:
    """What a search has found, for people and for programs."""

    def __init__(
        self, candidates: list[Candidate], precision: Precision, by_nodes: list[Option], goal: Goal, command: str
    ) -> None:
        from aiftrain.plan.nodes import priced
        from aiftrain.plan.rivals import front_runners, rivals
        from aiftrain.plan.sensitivity import sensitivity

        self.candidates, self.by_nodes, self.goal, self.command = candidates, by_nodes, goal, command
        self.front = [priced(candidate, precision) for candidate in front_runners(candidates, _SHOWN)]
        self.rivals = rivals(candidates)
        self.influences = sensitivity(candidates[0].spec, precision)

    def as_document(self) -> dict[str, Any]:
        """What `--json` prints."""
        spec = self.candidates[0].spec
        return {
            "recipe": spec.recipe,
            "factory": spec.factory.name,
            "nodes": spec.nodes,
            "command": self.command,
            "front": [_document(one) for one in self.front],
            "rivals": [rival.model_dump(mode="json") for rival in self.rivals],
            "sensitivity": [influence.model_dump(mode="json") for influence in self.influences],
            "candidates": [{"strategy": one.strategy, **one.model_dump(mode="json")} for one in self.candidates],
            "node_counts": [_document(one) for one in self.by_nodes],
        }

    def show(self, spec: RunSpec, console: Console) -> None:
        nodes = output.plural(spec.nodes, "node")
        tried = output.plural(len(self.candidates), "layout")
        output.headline(f"{spec.recipe} on {nodes} of {spec.factory.title}: {tried} tried", console)
        if self.goal:
            output.show(_nodes_table(self.by_nodes, spec.nodes), console)
            console.print()
        output.show(_front_table(self.front), console)
        console.print()
        rows = [*_careful_rows(self.by_nodes, spec.nodes, self.goal), *_lacking_rows(self.front)]
        rows += [*_rival_rows(self.rivals), *_influence_rows(self.influences)]
        rows += _notes(spec, self.front, self.goal)
        output.show(output.facts(rows), console)
        console.print(f"\n{self.command}", markup=False, soft_wrap=True)


def _refuse(spec: RunSpec, precision: Precision, *, any_nodes: bool) -> None:
    """Raises ConfigError with what no layout would mend; the number of nodes is no matter where it is searched for."""
    from aiftrain.plan.advice import cannot_run_here
    from aiftrain.plan.layouts import formed
    from aiftrain.plan.limits import precision_problems, site_problems

    smallest = formed(spec, 3, spec.train.micro_batch, spec.train.recompute)
    foreign = cannot_run_here(smallest, precision)
    problems = [foreign] if foreign else site_problems(spec) + precision_problems(spec, precision)
    problems = [problem for problem in problems if not (any_nodes and problem.where == "nodes")]
    if problems:
        raise ConfigError(problems)


def _refuse_too_large(spec: RunSpec, precision: Precision, candidates: Sequence[Candidate]) -> None:
    """Raises ConfigError where no layout fits."""
    from aiftrain.plan.search import best_of

    found = best_of(candidates, spec, precision)
    if isinstance(found, Problem):
        raise ConfigError([found])


def _command(overrides: Sequence[str], winner: Candidate, spec: RunSpec, goal: Goal) -> str:
    """The command line that takes the best layout: what was typed, with what the search has decided."""
    from aiftrain.plan.counts import queue_words
    from aiftrain.plan.layouts import words_of

    decided = {*_SEARCHED, *(_NODES if goal else ())}
    keys = {word: word.lstrip("+").partition("=")[0] for word in overrides}
    kept = [word for word, key in keys.items() if key not in decided and not key.startswith("parallelism.")]
    layout = winner.layout
    words = [
        *words_of(winner.spec.parallelism),
        f"train.micro_batch={layout.micro_batch}",
        f"train.recompute={layout.recompute}",
        *([f"train.recompute_every={layout.recompute_every}"] if layout.recompute_every > 1 else []),
    ]
    if goal:
        words = [f"nodes={spec.nodes}", *queue_words(winner.spec), *words]
    return shlex.join(["python", "-m", "aiftrain", *kept, *words])


def _document(one: Option) -> dict[str, Any]:
    return {"strategy": one.candidate.strategy, **one.model_dump(mode="json")}


def _nodes_table(by_nodes: Sequence[Option], chosen: int) -> Any:
    units = next((f"{one.unit}s" for one in by_nodes if one.prediction is not None), "")
    header = ("nodes", "layout", "tokens/s", "days", "range", units, "")
    rows = (_nodes_row(one, chosen) for one in by_nodes)
    return output.table(header, rows, numbers=(0, 2, 3, 5))


def _nodes_row(one: Option, chosen: int) -> tuple[str, ...]:
    mark = "<- chosen" if one.nodes == chosen else ""
    layout = f"{one.candidate.strategy}, {one.candidate.layout.micro_batch}, {one.candidate.layout.recompute}"
    rate = one.candidate.rate
    if one.prediction is None or rate is None:
        return f"{one.nodes:,}", one.lacking, "", "", "", "", mark
    days = amount(one.days), span(one.quickest, one.slowest)
    return f"{one.nodes:,}", layout, short(rate.tokens_per_s), *days, amount(one.units), mark


def _front_table(front: Sequence[Option]) -> Any:
    units = next((f"{one.unit}s" for one in front if one.prediction is not None), "")
    header = ("strategy", "micro", "recompute", "GiB", "tokens/s", "range", "MFU", "days", units)
    return output.table(header, map(_front_row, front), numbers=(1, 3, 4, 6, 7, 8))


def _front_row(one: Option) -> tuple[str, ...]:
    candidate, rate = one.candidate, one.candidate.rate
    layout = candidate.layout
    first = (candidate.strategy, str(layout.micro_batch), layout.recompute, f"{candidate.memory.total / 2**30:,.1f}")
    if rate is None:
        return *first, "unknown", "", "", "", ""
    tokens = rate.tokens_per_s * rate.seconds_per_step
    range_ = short_span(tokens / rate.high, tokens / rate.low)
    share = f"{rate.flop_share:.0%}" if rate.flop_share else ""
    cost = (amount(one.days), amount(one.units)) if one.prediction is not None else ("", "")
    return *first, short(rate.tokens_per_s), range_, share, *cost


def _lacking_rows(front: Sequence[Option]) -> Iterator[tuple[str, str]]:
    if front and front[0].lacking:
        yield "unknown", f"{front[0].lacking}; so the layout nearest to what was asked for comes first"


def _rival_rows(rivals: Sequence[Rival]) -> Iterator[tuple[str, str]]:
    label = "why not"
    for rival in rivals:
        if rival.why:
            yield label, f"{', '.join(rival.choices)}: {rival.why}"
            label = ""


def _influence_rows(influences: Sequence[Influence]) -> Iterator[tuple[str, str]]:
    label = "what if"
    for influence in influences:
        yield label, f"{influence.change}: {_effect(influence.effect)}"
        label = ""


def _effect(effect: float) -> str:
    return f"{effect:+.1%} tokens/s" if abs(effect) >= _SEEN else "no change"


def _careful_rows(by_nodes: Sequence[Option], chosen: int, goal: Goal) -> Iterator[tuple[str, str]]:
    """What a deadline needs that is to hold at the slow end of the range too."""
    one = next((one for one in by_nodes if one.nodes == chosen), None)
    if goal.deadline is None or one is None or one.slowest <= goal.deadline:
        return
    safe = [other.nodes for other in by_nodes if other.prediction is not None and other.slowest <= goal.deadline]
    then = f"nodes={min(safe)} is in time even then" if safe else "no number of nodes is in time then"
    yield "careful", f"at the slow end of the range it takes {amount(one.slowest)} days; {then}"


def _notes(spec: RunSpec, front: Sequence[Option], goal: Goal) -> Iterator[tuple[str, str]]:
    from aiftrain.plan.room import MARGIN

    yield "assumed", f"a layout fits where it needs {MARGIN:.0%} of a rank's memory or less"
    if spec.factory.status == "announced":
        yield "", f"{spec.factory.name} is announced: nothing runs there yet, and its figures may change"
    rate = front[0].candidate.rate if front else None
    if rate is not None and not rate.calibrated:
        yield "", "no published runs on this hardware are behind the speeds: their range is wider"
    if rate is not None and rate.assumed:
        yield "", f"undocumented: {', '.join(rate.assumed)}"
    if goal.cheapest and spec.access.days is None:
        yield "", "fewer nodes are nearly always cheaper: say how long it may take with access=MODE, or use --deadline"
    if front and front[0].prediction is not None and spec.factory.billing is None:
        yield "unknown", "how the site bills; node-hours stand in"


def _draw(spec: RunSpec, by_nodes: Sequence[Option], options: argparse.Namespace) -> None:
    from aiftrain.cli.plan_pictures import scaling

    output.console(as_json=options.json).print(f"\npicture: {scaling(spec, by_nodes, options.picture)}", markup=False)
