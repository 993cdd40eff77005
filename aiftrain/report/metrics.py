"""Reads a run's metrics.jsonl: training and validation records, without what a resumed attempt made void."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiftrain.run.folder import RunFolder


@dataclass(frozen=True)
class TrainRecord:
    """One optimizer step. `loss` in nats a token; `tokens` and `sources` count from the start of the run.

    `skipped`: the guard did not let it be applied.
    """

    step: int
    attempt: int
    time: float
    tokens: int
    loss: float
    grad_norm: float
    lr: float
    tokens_per_s: float
    flop_share: float | None
    sources: dict[str, int]
    skipped: bool = False


@dataclass(frozen=True)
class ValidationRecord:
    """The loss of each source (nats a token) after `step` steps."""

    step: int
    attempt: int
    time: float
    losses: dict[str, float]


@dataclass
class Metrics:
    """What a run has measured so far, in the order of its steps."""

    train: list[TrainRecord] = field(default_factory=list)
    validation: list[ValidationRecord] = field(default_factory=list)
    attempt: int = 0

    def add(self, document: dict[str, Any]) -> None:
        """Take one line of metrics.jsonl. Lines of neither kind are passed over."""
        record = _parse(document)
        if record is None:
            return
        if record.attempt > self.attempt or self._is_again(record):
            self._forget_from(record.step)
            self.attempt = record.attempt
        if isinstance(record, TrainRecord):
            self.train.append(record)
        else:
            self.validation = [r for r in self.validation if r.step < record.step] + [record]

    def _is_again(self, record: TrainRecord | ValidationRecord) -> bool:
        """Whether the attempt went back, and takes a step for the second time."""
        return isinstance(record, TrainRecord) and bool(self.train) and record.step <= self.train[-1].step

    def _forget_from(self, step: int) -> None:
        """`step` is done again: what was said before of it and of later steps is void."""
        self.train = [r for r in self.train if r.step < step]
        self.validation = [r for r in self.validation if r.step < step]


class Tail:
    """A growing .jsonl file, read once: each call gives the whole lines that are new."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._offset = 0

    def new(self) -> Iterator[dict[str, Any]]:
        """The records written since the last call. A line without its end waits; a spoilt one is passed over."""
        if not self.file.is_file():
            return
        with self.file.open("rb") as stream:
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                record = _decode(line)
                if record is not None:
                    yield record


def read_metrics(folder: RunFolder) -> Metrics:
    """All that a run has measured up to now."""
    metrics = Metrics()
    for document in Tail(folder.metrics).new():
        metrics.add(document)
    return metrics


def _decode(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _parse(document: dict[str, Any]) -> TrainRecord | ValidationRecord | None:
    try:
        where = int(document["step"]), int(document["attempt"]), float(document["time"])
        if "validation" in document:
            return ValidationRecord(*where, {name: _number(x) for name, x in document["validation"].items()})
        return TrainRecord(
            *where,
            tokens=int(document["tokens"]),
            loss=_number(document["loss"]),
            grad_norm=_number(document.get("grad_norm")),
            lr=_number(document.get("lr")),
            tokens_per_s=_number(document.get("tokens_per_s")),
            flop_share=document.get("flop_share"),
            sources=dict(document.get("sources") or {}),
            skipped=bool(document.get("skipped")),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
