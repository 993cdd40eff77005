"""Long work on checkpoints: a bar of the bytes done where somebody watches, and a way to stop between two blocks."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from aiftrain.cli import output
from aiftrain.errors import StoppedEarly

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """While it is entered, a signal that asks this process to end is only noted, and `check` or `wait` raises."""

    def __init__(self) -> None:
        self._signal: str | None = None
        self._came = threading.Event()
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Stop:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # typeshed's handler type has no name

    def check(self) -> None:
        """StoppedEarly where a signal came."""
        if self._signal:
            raise StoppedEarly(f"stopped by {self._signal}: what is done stays done, and the same command goes on")

    def wait(self, seconds: float) -> None:
        """Sleep, unless a signal comes or somebody calls `wake`."""
        self._came.wait(seconds)
        self._came.clear()
        self.check()

    def wake(self) -> None:
        """End the `wait` at hand, or else the next one."""
        self._came.set()

    def _note(self, number: int, _: FrameType | None) -> None:
        self._signal = signal.Signals(number).name
        self._came.set()


class _Speed(ProgressColumn):
    """`351.5 MiB/s`, in the units of the size beside it, which rich's own is not."""

    def render(self, task: Task) -> Text:
        return Text(f"{output.size(task.speed or 0)}/s", no_wrap=True)


class Bar:
    """Shows one piece of work at a time, in bytes."""

    def __init__(self, console: Console, stop: Stop) -> None:
        self.console = console
        self._stop = stop
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            BarColumn(20),
            DownloadColumn(binary_units=True, table_column=Column(no_wrap=True)),
            _Speed(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            expand=True,
        )

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, what: str, size: int) -> None:
        """A piece of work of `size` bytes, in place of the one before."""
        self.end()
        self._progress.add_task(what, total=size)

    def advance(self, size: int) -> None:
        """So many bytes more are done. StoppedEarly where a signal came."""
        self._stop.check()
        for task in self._progress.task_ids:
            self._progress.advance(task, size)

    def end(self) -> None:
        """The piece of work is done, or given up."""
        for task in self._progress.task_ids:
            self._progress.remove_task(task)
