"""What is known of a running attempt: its files read as they grow, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiftrain.report.metrics import Metrics, Tail, TrainRecord, ValidationRecord
from aiftrain.run.folder import RunFolder
from aiftrain.run.spec import RunSpec

_RATE_OVER = 100  # records that the time left is judged by

Event = dict[str, Any]


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


def describe(event: Event) -> str | None:
    """An event in words; None for those that the view shows in other ways."""
    name, step = event.get("event"), event.get("step")
    match name:
        case "start":
            return "; ".join(_machine(event))
        case "phase":
            return f"at step {step}: batches of {event.get('global_batch')} x {event.get('sequence_length')} tokens"
        case "resume":
            return f"resumed at step {step}"
        case "saved":
            return f"saved step {step} ({event.get('bytes', 0) / 1e6:,.0f} MB in {event.get('seconds', 0):.1f} s)"
        case "save waited":
            return f"the save of step {step} waited {event.get('seconds', 0):.1f} s for the one before it"
        case "unchanged":
            return f"warning: {event.get('message')}"
        case "saved uncopied" | "custody damaged" | "vanished":
            return str(event.get("message", name))
        case "writer restarted":
            return f"a process that wrote step {step} was killed, and started again"
        case "damaged":
            return f"checkpoint of step {step} is damaged and was passed over: {event.get('message', '')}"
        case "warning":
            return f"warning: {_on(event)}: {event.get('found')}, where {event.get('expected')} was expected"
        case "bad node":
            return f"node {event.get('host')} is bad: {event.get('reason')}"
        case "straggler":
            return f"{_on(event)} took {event.get('ratio')} times as long as others by step {step}"
        case "spike":
            return f"step {step}: {_trouble(event)}; applied all the same"
        case "skip":
            return f"step {step} was skipped: {_trouble(event)}"
        case "rollback":
            return f"step {step}: {_trouble(event)}; back to step {event.get('to_step')}, without the data in between"
        case "void":
            return f"checkpoint of step {step} was set aside: the run went back to before it"
        case "hopeless":
            return f"step {step}: {_trouble(event)}; training cannot go on from there"
        case "stopping":
            return f"stopping at step {step}: asked by {event.get('signal', 'a signal')}"
        case "hang":
            return f"a rank made no step for {event.get('seconds', 0):,.0f} s and was ended"
        case "ended":
            return f"ended with {event.get('exit_code')}; next: {event.get('next')}, {event.get('why')}"
    return None


def _trouble(event: Event) -> str:
    """The numbers of a step that the guard found wrong."""
    loss, norm = (event[name] if event.get(name) is not None else math.nan for name in ("loss", "grad_norm"))
    limit = "" if event.get("limit") is None else f", limit {event['limit']:.3g}"
    words = str(event.get("trouble", "trouble")).replace("_", " ")
    return f"{words} (loss {loss:.3g}, gradient norm {norm:.3g}{limit})"


def _on(event: Event) -> str:
    """Which ranks and hosts an event is about; few words, however many they are."""
    hosts, ranks = event.get("hosts") or [event.get("host")], event.get("ranks") or []
    more = " and others" if len(hosts) > 1 else ""
    who = f"rank {ranks[0]}" if len(ranks) == 1 else f"{len(ranks)} ranks"
    return f"{who} on {hosts[0]}{more}"


def _machine(event: Event) -> Iterator[str]:
    millions = event.get("parameters", 0) / 1e6
    yield f"{millions:,.1f} M parameters on {event.get('world_size')} ranks in {event.get('precision')}"
    if event.get("matmul_tflops"):
        yield f"matmul rate here {event['matmul_tflops']:.2f} TFLOP/s"
