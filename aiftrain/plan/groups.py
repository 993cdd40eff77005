"""The groups of a configuration and their choices, as files: conf/, recipes/, and the user's own folders.

Reading them takes no Hydra, so that tables and "did you mean" are quick.
"""

from __future__ import annotations

import copy
import difflib
import itertools
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from aiftrain.errors import ConfigError, Problem, UserError
from aiftrain.shipped import conf_dir, recipes_dir

RECIPE = "recipe"
AUTO = "auto"  # the choice of `factory` that means "wherever this is"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Hydra reads it: a date stays the text that it is."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True)
class Groups:
    """Which groups and choices there are. `own` folders come first: a choice in them replaces a shipped one."""

    own: tuple[Path, ...] = ()

    @cached_property
    def names(self) -> list[str]:
        """The groups, such as factory, model and recipe."""
        folders = [path for root in (*self.own, conf_dir()) if root.is_dir() for path in root.iterdir()]
        return sorted({path.name for path in folders if path.is_dir()} | {RECIPE})

    def choices(self, group: str) -> list[str]:
        """The names of a group's files; one in a folder below is named with it, such as replica/eurollm-9b."""
        folders = self._folders(group)
        return sorted({_choice(folder, file) for folder in folders for file in folder.rglob("*.yaml")})

    def in_words(self, group: str) -> str:
        """The choices for a message: all by name, but of those in folders below only how many there are."""
        choices = self.choices(group)
        folders = Counter(name.rpartition("/")[0] for name in choices if "/" in name)
        below = [f"{count} in {folder}/ (for example {_first(choices, folder)})" for folder, count in folders.items()]
        return ", ".join([name for name in choices if "/" not in name] + below)

    def shipped_recipes(self, choice: str) -> dict[str, Path]:
        """A recipe and those that its defaults list names, with their files, as far as they are shipped."""
        names, found = [choice], {}
        for name in names:  # it grows meanwhile
            file = self.file(RECIPE, name)
            named = str(read_yaml(file).get("defaults", ""))
            names += [other for other in self.choices(RECIPE) if other in named and other not in names]
            if file.is_relative_to(recipes_dir()):
                found[name] = file
        return found

    def file(self, group: str, choice: str) -> Path:
        """The file behind a choice; ConfigError with the valid names where there is none."""
        for folder in self._folders(group):
            if (folder / f"{choice}.yaml").is_file():
                return folder / f"{choice}.yaml"
        raise ConfigError([self.unknown(group, choice)])

    def read(self, group: str, choice: str) -> dict[str, Any]:
        """A choice's content, without its defaults list."""
        document = read_yaml(self.file(group, choice))
        document.pop("defaults", None)
        return document

    def default(self, group: str, choice: str, other: str) -> str | None:
        """What a choice's defaults list makes of another group, such as a factory of the hardware; None: nothing."""
        for entry in read_yaml(self.file(group, choice)).get("defaults", []):
            for key, value in entry.items() if isinstance(entry, dict) else ():
                if key.split("@")[0] == f"override /{other}":
                    return str(value)
        return None

    def summary(self, group: str, choice: str) -> str:
        """The first sentence of the comment that a choice's file opens with."""
        words = " ".join(line.strip() for line in self.opening(group, choice))
        return words.split(". ")[0].rstrip(".")

    def opening(self, group: str, choice: str) -> list[str]:
        """The lines of the comment that a choice's file opens with."""
        lines = self.file(group, choice).read_text(encoding="utf-8").splitlines()
        comments = itertools.takewhile(lambda line: line.startswith("#"), lines)
        return [line.lstrip("#").removeprefix(" ") for line in comments if "@package" not in line]

    def unknown(self, group: str, choice: str) -> Problem:
        """What to say of a choice that does not exist."""
        close = did_you_mean(choice, self.choices(group))
        return Problem(group, f"there is no {group} '{choice}'", f"{close}there are: {self.in_words(group)}")

    def _folders(self, group: str) -> list[Path]:
        shipped = recipes_dir() if group == RECIPE else conf_dir() / group
        return [folder for folder in (*(own / group for own in self.own), shipped) if folder.is_dir()]


def _choice(folder: Path, file: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()


def _first(choices: list[str], folder: str) -> str:
    return next(name for name in choices if name.startswith(f"{folder}/"))


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; UserError with the place of the mistake where it does not."""
    try:
        state = file.stat()
        document = _parsed(file, state.st_mtime_ns, state.st_size)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise UserError(f"{file} holds no keys: a mapping such as `name: value` is expected")
    return copy.deepcopy(document)  # the caller's own, to take keys out of


@cache
def _parsed(file: Path, _changed_ns: int, _size: int) -> object:
    """What a file held then. Where no factory is named, all are read for each run that is composed."""
    return yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)


def folder_of(path: str) -> Path:
    """A folder as hydra.searchpath names it."""
    return Path(path.removeprefix("file://")).expanduser().absolute()


def did_you_mean(word: str, names: list[str]) -> str:
    """`did you mean x? ` or nothing. A name in a folder may be meant without it."""
    meant = {name.rpartition("/")[2]: name for name in names} | {name: name for name in names}
    close = difflib.get_close_matches(word, meant, n=1)
    return f"did you mean {meant[close[0]]}? " if close else ""
