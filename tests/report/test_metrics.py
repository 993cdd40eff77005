"""Reading metrics.jsonl: void records, cut lines, growing files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aiftrain.report.metrics import Metrics, Tail, read_metrics
from aiftrain.run.folder import RunFolder, append_line


def train(step: int, attempt: int, loss: float | None = 1.0) -> dict[str, Any]:
    return {"step": step, "attempt": attempt, "time": float(step), "tokens": step * 10, "loss": loss}


def validation(step: int, attempt: int, loss: float = 2.0) -> dict[str, Any]:
    return {"step": step, "attempt": attempt, "time": float(step), "validation": {"de": loss}}


def collect(*documents: dict[str, Any]) -> Metrics:
    metrics = Metrics()
    for document in documents:
        metrics.add(document)
    return metrics


def test_what_a_resumed_attempt_does_again_is_void() -> None:
    old = [train(step, 1, 9.0) for step in range(1, 14)]
    new = [train(step, 2, 5.0) for step in range(11, 16)]
    metrics = collect(*old, validation(10, 1), validation(12, 1), *new, validation(12, 2))
    assert [r.step for r in metrics.train] == list(range(1, 16))
    assert [r.loss for r in metrics.train] == [9.0] * 10 + [5.0] * 5
    assert [(r.step, r.attempt) for r in metrics.validation] == [(10, 1), (12, 2)]


def test_an_attempt_that_starts_over_voids_everything() -> None:
    metrics = collect(train(1, 1), train(2, 1), train(1, 3))
    assert [(r.step, r.attempt) for r in metrics.train] == [(1, 3)]


def test_what_a_rollback_does_again_is_void() -> None:
    old, new = [train(step, 1, 9.0) for step in range(1, 14)], [train(step, 1, 5.0) for step in range(11, 13)]
    metrics = collect(*old[:10], validation(10, 1), *old[10:], validation(13, 1), *new)
    assert [(r.step, r.loss) for r in metrics.train] == [(step, 9.0) for step in range(1, 11)] + [(11, 5.0), (12, 5.0)]
    assert [r.step for r in metrics.validation] == [10]
    assert [(r.step, r.losses["de"]) for r in collect(validation(8, 1, 9.0), validation(8, 1)).validation] == [(8, 2.0)]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=6))
def test_steps_always_rise_by_one(attempts: list[tuple[int, int]]) -> None:
    metrics, done = Metrics(), 0
    for number, (saved, steps) in enumerate(attempts, start=1):
        begin = min(saved, done)
        done = begin + steps
        for step in range(begin + 1, done + 1):
            metrics.add(train(step, number))
    assert [r.step for r in metrics.train] == list(range(1, done + 1))


def test_strange_records_are_passed_over_and_missing_numbers_are_no_numbers() -> None:
    metrics = collect({}, {"step": "x"}, {"step": 1, "attempt": 1, "time": 0, "validation": 3}, train(1, 1, None))
    assert len(metrics.train) == 1 and math.isnan(metrics.train[0].loss)
    assert math.isnan(metrics.train[0].grad_norm) and metrics.train[0].flop_share is None


def test_a_cut_line_spoils_no_other(run_folder: RunFolder) -> None:
    append_line(run_folder.metrics, train(1, 1))
    with run_folder.metrics.open("a") as stream:
        stream.write('{"step": 2, "att')
    append_line(run_folder.metrics, train(2, 2))
    assert [(r.step, r.attempt) for r in read_metrics(run_folder).train] == [(1, 1), (2, 2)]


def test_no_file_is_no_metrics(run_folder: RunFolder) -> None:
    assert read_metrics(run_folder).train == []


def test_a_tail_gives_each_line_once_and_waits_for_its_end(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    tail = Tail(file)
    assert list(tail.new()) == []
    file.write_text('{"a": 1}\n[1]\nnonsense\n{"a": ')
    assert list(tail.new()) == [{"a": 1}]
    with file.open("a") as stream:
        stream.write("2}\n" + json.dumps({"a": "ä"}, ensure_ascii=False) + "\n")
    assert list(tail.new()) == [{"a": 2}, {"a": "ä"}]
    assert list(tail.new()) == []
