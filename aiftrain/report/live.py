"""Shows a run while it goes: a live panel on a terminal, plain lines where there is none."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from itertools import pairwise

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aiftrain.report.events import describe
from aiftrain.report.metrics import TrainRecord
from aiftrain.report.progress import Progress
from aiftrain.run.folder import RunFolder

_LOOK_EVERY = 0.25  # seconds
_LINE_EVERY = 5.0  # seconds between plain lines
_EVENTS_SHOWN = 4
_SPARKS = "▁▂▃▄▅▆▇█"


def follow(folder: RunFolder, attempt: int, running: Callable[[], bool], console: Console) -> None:
    """Show attempt `attempt` of the run until `running()` is false; what came last is still shown."""
    view = _Panel if console.is_terminal else _Lines
    view(Progress(folder, attempt), console).follow(running)


class _Lines:
    """A line each few seconds, and one for every event and validation: for logs."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress, self._console = progress, console
        self._phase = ""
        self._shown_step = self._shown_validation = 0
        self._next_line = 0.0

    def follow(self, running: Callable[[], bool]) -> None:
        while running():
            self._look()
            time.sleep(_LOOK_EVERY)
        self._next_line = 0.0
        self._look()

    def _look(self) -> None:
        for event in self._progress.update():
            if words := describe(event):
                self._say(words)
        self._say_phase()
        self._say_step()
        self._say_validation()

    def _say_phase(self) -> None:
        phase = self._progress.phase
        if phase != self._phase and phase != "training":
            self._say(phase)
        self._phase = phase

    def _say_step(self) -> None:
        record = self._progress.latest
        if record is None or record.step == self._shown_step or time.monotonic() < self._next_line:
            return
        self._shown_step = record.step
        self._next_line = time.monotonic() + _LINE_EVERY
        self._say(f"step {record.step}/{self._progress.total_steps}  " + "  ".join(_figures(self._progress, record)))

    def _say_validation(self) -> None:
        record = self._progress.validation
        if record is not None and record.step != self._shown_validation:
            self._shown_validation = record.step
            self._say(f"step {record.step}  validation {_by_source(record.losses)}")

    def _say(self, words: str) -> None:
        self._console.print(Text(words), soft_wrap=True)


class _Panel:
    """A panel that is redrawn in place."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress, self._console = progress, console
        self._events: deque[str] = deque(maxlen=_EVENTS_SHOWN)

    def follow(self, running: Callable[[], bool]) -> None:
        with Live(self._draw(), console=self._console, auto_refresh=False, transient=False) as live:
            while running():
                live.update(self._draw(), refresh=True)
                time.sleep(_LOOK_EVERY)
            live.update(self._draw(), refresh=True)

    def _draw(self) -> RenderableType:
        self._events.extend(filter(None, map(describe, self._progress.update())))
        parts: list[RenderableType] = [self._bar()]
        record = self._progress.latest
        if record is not None:
            parts.append(self._table(record))
        parts.extend(Text(words, style="dim", no_wrap=True, overflow="ellipsis") for words in self._events)
        title = f"{self._progress.spec.recipe}  attempt {self._progress.attempt}"
        return Panel(Group(*parts), title=title, title_align="left", border_style="cyan")

    def _bar(self) -> RenderableType:
        record, total = self._progress.latest, self._progress.total_steps
        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(ratio=1)
        row.add_column(justify="right", no_wrap=True)
        if record is None:
            row.add_row(ProgressBar(pulse=True), self._progress.phase)
        else:
            row.add_row(ProgressBar(total, record.step), f"step {record.step:,} of {total:,}")
        return row

    def _table(self, record: TrainRecord) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        left = self._progress.seconds_left()
        losses = [r.loss for r in self._progress.metrics.train]
        table.add_row("loss", f"{record.loss:.4f}", sparkline(losses, 24))
        if self._progress.validation is not None:
            table.add_row(
                "validation", _by_source(self._progress.validation.losses), f"step {self._progress.validation.step}"
            )
        table.add_row("gradient norm", f"{record.grad_norm:.3f}", f"learning rate {record.lr:.2e}")
        table.add_row("tokens", f"{record.tokens:,}", _speed(record))
        table.add_row("time left", duration(left), f"last checkpoint: {self._saved()}")
        if self._progress.skipped or self._progress.rollbacks:
            table.add_row("guard", f"skipped steps: {self._progress.skipped}", f"rollbacks: {self._progress.rollbacks}")
        return table

    def _saved(self) -> str:
        return "none yet" if self._progress.saved is None else f"step {self._progress.saved}"


def sparkline(values: list[float], width: int) -> str:
    """The course of `values` in at most `width` characters, each the mean of its share; no number is shown as a dot."""
    if not values:
        return ""
    width = min(width, len(values))
    edges = [i * len(values) // width for i in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    finite = [m for m in means if math.isfinite(m)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    return "".join(_spark(m, low, high) for m in means)


def duration(seconds: float | None) -> str:
    """Seconds in words such as `2 d 03 h`, `1 h 05 min`, `3 min 20 s`, `8 s`."""
    if seconds is None:
        return "not known yet"
    whole = max(0, round(seconds))
    for unit, smaller, size, step in (("d", "h", 86_400, 3_600), ("h", "min", 3_600, 60), ("min", "s", 60, 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // step:02d} {smaller}"
    return f"{whole} s"


def _spark(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return "·"
    if high == low:
        return _SPARKS[0]
    return _SPARKS[round((value - low) / (high - low) * (len(_SPARKS) - 1))]


def _figures(progress: Progress, record: TrainRecord) -> list[str]:
    return [
        f"loss {record.loss:.4f}",
        f"gradient norm {record.grad_norm:.3f}",
        f"lr {record.lr:.2e}",
        _speed(record),
        f"left {duration(progress.seconds_left())}",
    ]


def _speed(record: TrainRecord) -> str:
    share = "" if record.flop_share is None else f" ({record.flop_share:.0%} of the matmul rate)"
    return f"{record.tokens_per_s:,.0f} tokens/s{share}"


def _by_source(losses: dict[str, float]) -> str:
    return "  ".join(f"{source} {loss:.4f}" for source, loss in losses.items())
