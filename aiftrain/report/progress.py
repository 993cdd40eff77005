"""What is known of a running attempt: its files read as they grow, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiftrain.report.events import Event
from aiftrain.report.metrics import Metrics, Tail, TrainRecord, ValidationRecord
from aiftrain.run.folder import RunFolder
from aiftrain.run.spec import RunSpec

_RATE_OVER = 100  # records that the time left is judged by


@dataclass
class Progress:
    """One attempt as its files tell it. `update` reads what is new; the rest only looks."""

    folder: RunFolder
    attempt: int
    metrics: Metrics = field(default_factory=Metrics)
    started: Event | None = None
    saved: int | None = None  # step of the newest checkpoint
    skipped: int = 0  # steps that the guard did not let be applied
    rollbacks: int = 0

    def __post_init__(self) -> None:
        self.spec: RunSpec = self.folder.read_spec()
        self._metrics_tail = Tail(self.folder.metrics)
        self._events_tail = Tail(self.folder.events)

    def update(self) -> list[Event]:
        """Read on; the events of this attempt that are new."""
        for document in self._metrics_tail.new():
            self.metrics.add(document)
        events = [event for event in self._events_tail.new() if event.get("attempt") == self.attempt]
        for event in events:
            self._note(event)
        return events

    def _note(self, event: Event) -> None:
        if event.get("event") == "start":
            self.started = event
        if event.get("event") == "saved":
            self.saved = event.get("step")
        self.skipped = event.get("skipped", self.skipped)
        self.rollbacks = event.get("rollbacks", self.rollbacks)

    @property
    def total_steps(self) -> int:
        return self.spec.timeline.total_steps

    @property
    def latest(self) -> TrainRecord | None:
        """The newest step of this attempt; None before its first."""
        train = self.metrics.train
        return train[-1] if train and train[-1].attempt == self.attempt else None

    @property
    def validation(self) -> ValidationRecord | None:
        """The newest validation of this attempt."""
        records = self.metrics.validation
        return records[-1] if records and records[-1].attempt == self.attempt else None

    @property
    def phase(self) -> str:
        """What the ranks are doing before the first step; "training" after it."""
        if self.latest is not None:
            return "training"
        if self.started is None:
            there = len(list(self.folder.attempt_logs(self.attempt).glob("rank-*.start.json")))
            return f"starting ranks ({there} up)"
        return "compiling the model" if self.spec.train.compile else "first step"

    def seconds_left(self) -> float | None:
        """Time to the last step at the recent pace, saving and validation included; None before the second step."""
        recent = [r for r in self.metrics.train[-_RATE_OVER:] if r.attempt == self.attempt]
        if len(recent) < 2:
            return None
        pace = (recent[-1].time - recent[0].time) / (recent[-1].step - recent[0].step)
        return pace * (self.total_steps - recent[-1].step)
