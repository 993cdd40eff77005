"""What is done in stages beside the training: a stage begins on every rank when all have ended the one before."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future, wait
from typing import Any

from aiftrain.errors import AiftrainError
from aiftrain.train.together import outcome_of, share

# Yields what is to be done in a thread, and is sent what it gave on each rank, in order of rank.
Stages = Generator[Callable[[], Any], list[Any], None]


class InFlight:
    """Work that has begun. All ranks call `advance` at the same point, once all are `ready`; then nobody waits."""

    def __init__(self, stages: Stages, thread: Executor) -> None:
        self._stages, self._thread = stages, thread
        self._stage = self._begin(next(stages))

    @property
    def ready(self) -> bool:
        """Whether this rank has ended the stage at hand."""
        return self._stage.done()

    def wait(self, seconds: float) -> None:
        """Until this rank has ended the stage at hand, but not for longer."""
        wait([self._stage], seconds)

    def advance(self) -> bool:
        """Go on with the next stage; whether there is one. What a stage failed of on any rank is everybody's error."""
        try:
            self._stage = self._begin(self._stages.send(share(self._stage.result())))
        except StopIteration:
            return False
        return True

    def _begin(self, work: Callable[[], Any]) -> Future[Any | AiftrainError]:
        return self._thread.submit(outcome_of, work)
