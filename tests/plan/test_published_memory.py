"""The memory model against published layouts that ran or ran out of memory (benchmarks/data/memory.csv)."""

from __future__ import annotations

from statistics import mean
from typing import Any

import pytest

from benchmarks.planner_memory import TABLE, evaluate, read


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return evaluate(read(TABLE), refit=False)


def test_running_out_of_memory_is_foreseen_on_layouts_not_fitted(result: dict[str, Any]) -> None:
    unseen = result["scores"]["Aleph Alpha, unseen"]
    assert unseen["layouts"] > 200
    assert unseen["right"] >= 0.9
    assert unseen["caught"] >= 0.9


def test_what_ran_is_not_called_too_large(result: dict[str, Any]) -> None:
    assert all(score["correct"] >= 0.95 for score in result["scores"].values())


def test_measured_memory_is_met(result: dict[str, Any]) -> None:
    errors = [abs(row["predicted_gib"] / row["measured_gib"] - 1) for row in result["measured"]]
    assert mean(errors) < 0.06
    assert max(errors) < 0.2
