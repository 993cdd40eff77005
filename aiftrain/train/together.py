"""Doing something on one rank or on all, so that an error on any of them is everybody's, in the same words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from aiftrain.errors import AiftrainError
from aiftrain.train.rendezvous import from_first, gather

T = TypeVar("T")


def on_first(action: Callable[[], T]) -> T:
    """Do something on rank 0 only; its result and its error are everybody's."""
    outcome = from_first(lambda: outcome_of(action))
    if isinstance(outcome, AiftrainError):
        raise outcome
    return outcome


def together(action: Callable[[], T]) -> list[T]:
    """Do something on every rank; all results, in order of rank. Where a rank fails, all get the first error."""
    return share(outcome_of(action))


def share(mine: T | AiftrainError) -> list[T]:
    """What every rank has, in order of rank. Where a rank has an error, all get the first."""
    outcomes = gather(mine)
    for outcome in outcomes:
        if isinstance(outcome, AiftrainError):
            raise outcome
    return [outcome for outcome in outcomes if not isinstance(outcome, AiftrainError)]


def outcome_of(action: Callable[[], T]) -> T | AiftrainError:
    """What something gave, or the error that it ended with, to be told to others."""
    try:
        return action()
    except AiftrainError as error:
        return error
