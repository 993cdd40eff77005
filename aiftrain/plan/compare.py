"""Comparison: one run at several sites, each with its best layout, without composing the run for each anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from omegaconf import OmegaConf
from pydantic import Field

from aiftrain.errors import ConfigError, Problem, UserError
from aiftrain.plan.counts import counts, placed
from aiftrain.plan.groups import Groups
from aiftrain.plan.limits import precision_problems, site_problems
from aiftrain.plan.memory import choose_precision
from aiftrain.plan.node import at_site
from aiftrain.plan.nodes import Option, fewest, option
from aiftrain.plan.overrides import own_groups, parse
from aiftrain.plan.search import has_roomy_form
from aiftrain.plan.spec import resolve, validate
from aiftrain.run.base import Strict
from aiftrain.run.machine import Factory, Hardware
from aiftrain.run.spec import RunSpec

ALL = "all"
_OF_ONE_SITE = ("factory", "hardware", "launcher", "account")
_DEFAULTS = {"hardware": "cpu", "launcher": "local"}  # of conf/config.yaml, where a factory names none


class Entry(Strict):
    """One site. Without an option the run cannot go there, and `why` says what stands against it.

    `why` with an option is why it has no price, or that it misses the deadline.
    """

    factory: Factory = Field(exclude=True, repr=False)
    hardware: Hardware = Field(exclude=True, repr=False)
    recipe: str
    name: str
    title: str
    announced: bool
    nodes_asked: int
    deadline: float | None
    option: Option | None
    why: str

    @property
    def priced(self) -> Option | None:
        """The option, if it has a price."""
        return self.option if self.option is not None and self.option.prediction is not None else None


def compare(overrides: list[str], names: Sequence[str], deadline: float | None) -> list[Entry]:
    """The run of `overrides` at the factories `names`, in their order; `all` means every site there is.

    Each has the nodes that were asked for, or with a deadline the fewest that meet it. Where a site does not give so
    many, or they cannot share out the batch, it has the next smaller number that works, and where they are too few to
    hold the run the next larger. Raises ConfigError for overrides that fit one site only, and for unknown names.
    """
    groups = own_groups(parse(overrides))
    _check(overrides)
    chosen = _factories(names, groups)
    base = resolve([*overrides, f"factory={chosen[0]}"])
    return [_entry(at(base, name, groups), base.nodes, deadline) for name in chosen]


def at(spec: RunSpec, name: str, groups: Groups) -> RunSpec:
    """`spec` at another factory: with its profile, its nodes, and its way to start jobs. Raises ConfigError."""
    choices = {group: groups.default("factory", name, group) or default for group, default in _DEFAULTS.items()}
    files = {
        "account": spec.account,
        "factory": groups.read("factory", name),
        **{group: groups.read(group, choice) for group, choice in choices.items()},
    }
    site = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(files), resolve=True))
    hardware = at_site(site["hardware"], site["factory"])
    if hardware.get("bf16") is None:  # of a CPU that is not this machine's
        hardware["bf16"] = False
    there = validate({**spec.model_dump(), **site, "hardware": hardware})
    return spec.model_copy(update={group: getattr(there, group) for group in ("factory", "hardware", "launcher")})


def _check(overrides: list[str]) -> None:
    """Overrides of a site's own figures would hold for all sites."""
    keys = [override.key_or_group for override in parse(overrides)]
    wrong = [key for key in keys if key.partition(".")[0] in _OF_ONE_SITE]
    if wrong:
        fits = "leave it out; plan factory=NAME takes it for one site"
        raise ConfigError([Problem(key, "holds at one site, and --compare takes each as it is", fits) for key in wrong])


def _factories(names: Sequence[str], groups: Groups) -> list[str]:
    """The names, each once; for `all` the factories that stand somewhere, unlike `local` and `generic-slurm`."""
    known = groups.choices("factory")
    if list(names) == [ALL]:
        return [name for name in known if groups.read("factory", name).get("country")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError([groups.unknown("factory", name) for name in unknown])
    if not names:
        raise UserError("--compare takes factories, such as lumi,leonardo,jupiter, or all")
    return list(dict.fromkeys(names))


def _entry(spec: RunSpec, asked: int, deadline: float | None) -> Entry:
    precision = choose_precision(spec)
    entry = Entry(
        factory=spec.factory,
        hardware=spec.hardware,
        recipe=spec.recipe,
        name=spec.factory.name,
        title=spec.factory.title,
        announced=spec.factory.status == "announced",
        nodes_asked=asked,
        deadline=deadline,
        option=None,
        why="",
    )
    there = _on_nodes(spec, asked)
    problems = precision_problems(spec, precision) + (site_problems(there) if there else [])
    if problems or there is None:
        found = "; ".join(problem.found for problem in problems)
        return entry.model_copy(update={"why": found or _no_nodes(spec)})
    one = option(there, precision)
    if deadline is None or one is None or one.prediction is None:
        return entry.model_copy(update={"option": one, "why": one.lacking if one else ""})
    one = fewest(spec, precision, deadline)
    late = "" if one.meets(deadline) else f"misses the deadline of {deadline:g} days, even on the most nodes"
    return entry.model_copy(update={"option": one, "why": one.lacking or late})


def _on_nodes(spec: RunSpec, asked: int) -> RunSpec | None:
    """On the nodes asked for, or the next number that works: smaller ones first, larger where those are too few."""
    possible = counts(spec)
    order = [nodes for nodes in reversed(possible) if nodes <= asked][:1] + [n for n in possible if n > asked]
    forms = [there for nodes in order if (there := placed(spec, nodes)) is not None]
    precision = choose_precision(spec)
    return next((form for form in forms if has_roomy_form(form, precision)), forms[0] if forms else None)


def _no_nodes(spec: RunSpec) -> str:
    each = spec.hardware.devices_per_node
    return f"no number of nodes of {each} devices shares out {spec.train.global_batch:,} sequences"
