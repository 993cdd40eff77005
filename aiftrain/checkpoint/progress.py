"""How work on many bytes is watched, and stopped."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int], None]  # is told bytes as they are handled, by any thread; what it raises ends all


def unwatched(_: int) -> None:
    """The Progress of who wants none."""


def reading_back(progress: Progress) -> Progress:
    """For what is read again after it was written: that is no progress, but may be stopped like it."""
    return lambda _: progress(0)
