"""Which checkpoints rules keep: each rule alone, and what stays whatever they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from aiftrain.checkpoint.listing import Summary
from aiftrain.checkpoint.pruning import ABANDONED, Rules, judge
from aiftrain.errors import UserError

NOW, DAY = 1.8e9, 24 * 3600.0


def complete(*steps: int) -> list[Summary]:
    """The last of them was saved now, each one before it a day earlier."""
    return [
        Summary(step, "complete", 100, time=NOW - (len(steps) - 1 - place) * DAY) for place, step in enumerate(steps)
    ]


def gone(
    summaries: Sequence[Summary],
    rules: Rules,
    kept: Callable[[int], str | None] = lambda step: None,
    verifies: Callable[[int], bool] = lambda step: True,
) -> list[int]:
    return [each.summary.step for each in judge(summaries, rules, kept, verifies, NOW) if each.goes]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(None, None, None), []),
        (Rules(2, None, None), [10, 15, 20]),
        (Rules(None, 20, None), [10, 15, 25]),
        (Rules(None, None, 2.5 * DAY), [10, 15]),
        (Rules(2, 20, 3.5 * DAY), [10]),
    ],
)
def test_what_no_rule_keeps_goes_and_without_rules_nothing(rules: Rules, expected: list[int]) -> None:
    assert gone(complete(10, 15, 20, 25, 30), rules) == expected


def test_what_somebody_wants_stays() -> None:
    assert gone(complete(10, 20, 30), Rules(1, None, None), {10: "a milestone"}.get) == [20]


def test_what_is_damaged_stays_for_a_person_and_does_not_count_as_the_newest() -> None:
    damaged = Summary(40, "damaged", 100, message="flipped")
    assert gone([*complete(10, 20, 30), damaged], Rules(1, None, None)) == [10, 20]


def test_of_what_never_became_complete_only_what_is_old_goes() -> None:
    old, new, unknown = (
        Summary(step, "incomplete", 100, time=time)
        for step, time in ((1, NOW - ABANDONED - 1), (2, NOW - ABANDONED + 1), (3, None))
    )
    assert gone([old, new, unknown, *complete(10, 20)], Rules(None, None, None)) == [1]


def test_the_newest_that_verifies_stays() -> None:
    assert gone(complete(10, 20, 30), Rules(1, None, None), verifies=lambda step: step < 30) == [10]


def test_where_none_verifies_nothing_goes() -> None:
    with pytest.raises(UserError, match="no checkpoint here verifies: nothing is removed"):
        gone(complete(10, 20), Rules(1, None, None), verifies=lambda step: False)
