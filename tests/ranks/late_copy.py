"""A rank that copies its state for a checkpoint at the worst time: when training waits for it, and not before.

Where training does not wait, the copy is made after the change that it should have waited for: after an update, or
while the average of the weights stands in their place. The rank may meet trouble as well (troubled.py).
"""

from __future__ import annotations

import threading
from typing import Any

from aiftrain.train import fragments
from aiftrain.train.capture import Capture
from aiftrain.train.in_flight import InFlight
from aiftrain.train.saving import Saver
from tests.ranks import troubled

_now = threading.Event()
_copied = threading.Event()
_copied.set()


def main(arguments: list[str]) -> int:
    make, copy = Capture.__init__, Capture._copy
    wait_for, wait, swap = Saver._wait_for, InFlight.wait, fragments.swap_average

    def copy_late(self: Capture, *memory: Any) -> None:
        _now.wait()
        _now.clear()
        copy(self, *memory)
        _copied.set()

    def begin(self: Capture, *arguments: Any) -> None:
        _copied.clear()
        make(self, *arguments)

    def let_copy() -> None:
        if not _copied.is_set():
            _now.set()

    def before_change(self: Saver, *arguments: Any) -> None:
        let_copy()
        wait_for(self, *arguments)

    def before_the_next(self: InFlight, seconds: float) -> None:
        let_copy()
        wait(self, seconds)

    def after_swap(engine: Any) -> None:
        swap(engine)
        let_copy()
        _copied.wait()

    for place, name, replacement in (
        (Capture, "__init__", begin),
        (Capture, "_copy", copy_late),
        (Saver, "_wait_for", before_change),
        (InFlight, "wait", before_the_next),
    ):
        setattr(place, name, replacement)
    fragments.swap_average = after_swap
    return troubled.main(arguments)
