"""Shapes of models by the names that published tables of training speed give them, out of conf/shapes.yaml."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from aiftrain.plan.groups import read_yaml
from aiftrain.run.model import ModelSpec
from aiftrain.shipped import conf_dir


def find(model_name: str) -> ModelSpec | None:
    """The shape of the model that a name such as "LLAMA3_70B" or "Llama 3.1 70b" means; None where none is known.

    Small and capital letters, spaces and signs do not matter. Of the aliases that stand in the name the longest wins.
    """
    name = _letters_and_digits(model_name)
    known = [alias for alias in _entries_by_alias() if alias in name]
    return _shape(_entries_by_alias()[max(known, key=len)]) if known else None


def _letters_and_digits(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


@cache
def _entries_by_alias() -> dict[str, str]:
    return {alias: name for name, entry in _table().items() for alias in entry["aliases"]}


@cache
def _table() -> dict[str, Any]:
    return read_yaml(conf_dir() / "shapes.yaml")


@cache
def _shape(name: str) -> ModelSpec:
    entry = _table()[name]
    return ModelSpec.model_validate({"name": name, "source": entry["source"], **entry["shape"]})
