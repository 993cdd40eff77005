"""From a composed dictionary to a RunSpec, or all the reasons why not, each with what would fit."""

from __future__ import annotations

import difflib
import typing
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from aiftrain.errors import ConfigError, Problem
from aiftrain.plan.groups import Groups
from aiftrain.run.spec import RunSpec

# pydantic's error types -> what would fit, in our words
_FITS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text, in quotes where it reads like a number",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
    "tuple_type": "a list, such as [a,b]",
}


def resolve(overrides: list[str]) -> RunSpec:
    """The run that `overrides` describe. Raises ConfigError."""
    from aiftrain.plan.compose import compose
    from aiftrain.plan.init_from import with_digests

    return with_digests(validate(compose(overrides)))


def validate(document: dict[str, Any]) -> RunSpec:
    """A RunSpec of `document`. Raises ConfigError with every problem, not the first."""
    try:
        return RunSpec.model_validate(document)
    except ValidationError as error:
        raise ConfigError([_problem(details) for details in error.errors(include_url=False)]) from error


def fields_under(key: str) -> dict[str, object]:
    """The keys under a dotted key, each with its type; all top ones under "", none under a plain value."""
    model = _model_at(key.split(".")) if key else RunSpec
    return {name: field.annotation for name, field in model.model_fields.items()} if model else {}


def _problem(details: ErrorDetails) -> Problem:
    path = details["loc"]
    where = ".".join(str(part) for part in path) or "configuration"
    kind, found = details["type"], details["input"]
    if kind == "extra_forbidden":
        return Problem(where, "unknown key", _advice_for_unknown(path))
    if kind == "missing" or found is None:
        return Problem(where, "has no value", _advice_for_missing(where))
    if kind == "value_error":
        return Problem(where, str(details["ctx"]["error"]))
    return Problem(where, f"{found!r} does not fit", f"must be {_FITS.get(kind) or _bounds(details)}")


def _advice_for_missing(where: str) -> str:
    groups = Groups()
    return f"{where}=NAME, one of: {', '.join(groups.choices(where))}" if where in groups.names else f"{where}=..."


def _bounds(details: ErrorDetails) -> str:
    """What pydantic says of a choice or a bound, as words after the key."""
    return details["msg"].removeprefix("Input should be ").replace("Value error, ", "")


def _advice_for_unknown(path: tuple[int | str, ...]) -> str:
    """Keys beside the unknown one that read like it, else keys of that name elsewhere, else all beside it."""
    prefix, word = ".".join(str(part) for part in path[:-1]), str(path[-1])
    beside = {name: f"{prefix}.{name}" if prefix else name for name in fields_under(prefix)}
    if close := difflib.get_close_matches(word, beside, n=1):
        return f"did you mean {beside[close[0]]}?"
    elsewhere = [key for key in _all_keys(RunSpec) if key.rsplit(".", 1)[-1] == word]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    return f"there are: {', '.join(beside.values())}"


def _model_at(path: list[str]) -> type[BaseModel] | None:
    """The model whose fields stand under a dotted path; None under a plain value or a dictionary of names."""
    model: type[BaseModel] = RunSpec
    rest = iter(path)
    for part in rest:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        inner = _model_in(annotation)
        named = typing.get_origin(annotation) is dict
        if inner is None or (named and next(rest, None) is None):
            return None
        model = inner
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model in an annotation such as `Container | None` or `dict[str, SourceSpec]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in typing.get_args(annotation) if (model := _model_in(part))), None)


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        inner = _model_in(field.annotation)
        if inner is not None and inner is not model:
            keys += _all_keys(inner, f"{prefix}{name}.")
    return keys
