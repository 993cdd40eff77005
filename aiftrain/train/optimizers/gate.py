"""The one place where an optimizer step can be stopped: the gradients' norm is known, no weight has changed yet."""

from __future__ import annotations

from collections.abc import Callable

Question = Callable[[], bool]


class Gate:
    """Lets a step's update through or not. `ask` answers once a step, however often DeepSpeed calls the optimizer.

    That happens on all ranks, group by group in the same order. So `ask` may communicate, and all ranks have to
    give the same answer. A step whose gradients are no numbers may never come as far: DeepSpeed drops it by itself.
    """

    def __init__(self) -> None:
        self.ask: Question | None = None
        self.before_change: Callable[[], None] = lambda: None  # of weights or states, by an update or a swap
        self._open: bool | None = None

    def next_step(self) -> None:
        """A new step begins: it will be asked again."""
        self._open = None

    @property
    def is_open(self) -> bool:
        """For the optimizer: whether it may update."""
        if self._open is None:
            self._open = self.ask is None or self.ask()
            if self._open:
                self.before_change()
        return self._open

    @property
    def let_through(self) -> bool:
        """Whether the last step's update happened: not where it was stopped, or never came to the gate."""
        return self._open is True
