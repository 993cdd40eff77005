"""Events in words, as the live view and `status` show them."""

from __future__ import annotations

from typing import Any

import pytest

from aiftrain.report.progress import describe


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (
            {"event": "warning", "hosts": ["n1"], "ranks": [5], "found": "one core, 12", "expected": "4"},
            "warning: rank 5 on n1: one core, 12, where 4 was expected",
        ),
        (
            {"event": "warning", "hosts": ["n1", "n2"], "ranks": [4, 5, 8], "found": "a", "expected": "b"},
            "warning: 3 ranks on n1 and others: a, where b was expected",
        ),
        ({"event": "bad node", "host": "n3", "reason": "no GPU"}, "node n3 is bad: no GPU"),
        (
            {"event": "straggler", "host": "n1", "ranks": [4, 5], "ratio": 1.5, "step": 50},
            "2 ranks on n1 took 1.5 times as long as others by step 50",
        ),
        ({"event": "unchanged", "message": "no weight has changed"}, "warning: no weight has changed"),
        ({"event": "preflight", "seconds": 0.1}, None),
    ],
)
def test_what_the_checks_and_the_straggler_report_say(event: dict[str, Any], words: str | None) -> None:
    assert describe(event) == words
