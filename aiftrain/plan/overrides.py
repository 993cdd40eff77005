"""What a person typed after the verb: Hydra's override grammar, read by Hydra's own parser."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, OverrideType
from hydra.errors import HydraException

from aiftrain.errors import ConfigError, Problem
from aiftrain.plan.groups import AUTO, RECIPE, Groups, folder_of

SEARCHPATH = "hydra.searchpath"


def parse(overrides: list[str]) -> list[Override]:
    """The overrides, parsed; ConfigError that lists every one that is none."""
    parser = OverridesParser.create()
    parsed: list[Override] = []
    problems = []
    for text in overrides:
        try:
            found = parser.parse_overrides([text])
        except HydraException:
            found = []
        if any(override.key_or_group for override in found):
            parsed += found
        else:
            problems.append(_unreadable(text))
    if problems:
        raise ConfigError(problems)
    return parsed


def expand(overrides: list[str]) -> list[list[str]]:
    """Every combination of the sweeps a,b range(1,4) choice(a,b) and glob(*), the last sweep fastest."""
    parsed = parse(overrides)
    groups = own_groups(parsed)
    return [list(choice) for choice in itertools.product(*(_values(override, groups) for override in parsed))]


def own_groups(parsed: Iterable[Override]) -> Groups:
    """The choices there are, with those of the folders in hydra.searchpath."""
    for override in parsed:
        if override.key_or_group == SEARCHPATH:
            folders = tuple(folder_of(path) for path in _as_list(override.value()))
            missing = [folder for folder in folders if not folder.is_dir()]
            if missing:
                raise ConfigError([Problem(SEARCHPATH, f"there is no folder {folder}") for folder in missing])
            return Groups(folders)
    return Groups()


def searchpath(groups: Groups) -> str:
    """The folders of one's own, absolute, as Hydra takes them."""
    names = (str(folder).replace("\\", "\\\\").replace("'", "\\'") for folder in groups.own)
    quoted = ",".join(f"'{name}'" for name in names)
    return f"{SEARCHPATH}=[{quoted}]"


def check_choices(parsed: list[Override], groups: Groups) -> None:
    """ConfigError for sweeps without -m, for choices that do not exist, and where no recipe is chosen."""
    problems = [_sweep_problem(override) for override in parsed if override.is_sweep_override()]
    for override in parsed:
        if _chooses(override, groups) and not override.is_sweep_override():
            group, choice = override.key_or_group, str(override.value())
            if choice not in groups.choices(group) and not (group == "factory" and choice == AUTO):
                problems.append(groups.unknown(group, choice))
    if not any(override.key_or_group == RECIPE for override in parsed):
        problems.append(Problem(RECIPE, "no recipe is chosen", f"recipe=NAME, one of: {groups.in_words(RECIPE)}"))
    if problems:
        raise ConfigError(problems)


def as_hydra_takes_it(override: Override, groups: Groups) -> str:
    """An override of a key as `++key=value`, so that pydantic, who knows every key, judges it; others as they are."""
    text = override.input_line or ""
    is_key = override.package is None and not _chooses(override, groups) and "/" not in override.key_or_group
    is_plain = override.type in (OverrideType.CHANGE, OverrideType.ADD)
    if is_plain and is_key and not override.key_or_group.startswith("hydra."):
        return "++" + text.lstrip("+")
    return text


def _chooses(override: Override, groups: Groups) -> bool:
    """Whether an override chooses from a group, rather than setting a key."""
    return "." not in override.key_or_group and override.key_or_group in groups.names and not override.is_delete()


def _values(override: Override, groups: Groups) -> list[str]:
    if not override.is_sweep_override():
        return [override.input_line or ""]
    if not override.is_discrete_sweep():
        fits = "a,b or range(1,4) or choice(a,b)"
        raise ConfigError([Problem(override.key_or_group, f"{override.input_line} has no end of values to try", fits)])
    value: object = override.value()
    if isinstance(value, Glob):
        return [f"{override.key_or_group}={name}" for name in value.filter(groups.choices(override.key_or_group))]
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _sweep_problem(override: Override) -> Problem:
    key = override.key_or_group
    return Problem(
        key,
        f"{override.input_line} gives several values",
        f"add -m to run each of them, or quote a list: '{key}=[a,b]'",
    )


def _unreadable(text: str) -> Problem:
    if "=" not in text:
        return Problem(
            text, "is neither a verb nor an override", "key=value, such as nodes=4; or ~key to leave a key out"
        )
    return Problem(text, "cannot be read as key=value", "quote a value with special characters: 'key=\"one, two\"'")


def _as_list(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]
