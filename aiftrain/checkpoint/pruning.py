"""Which checkpoints of a place may go: by rules, never a milestone, and never the newest that verifies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from aiftrain.checkpoint.listing import Summary
from aiftrain.errors import UserError

ABANDONED = 2 * 24 * 3600.0  # seconds since the last object without a commit arrived: whoever sent it is gone


@dataclass(frozen=True)
class Rules:
    """A checkpoint stays that any of them keeps: the newest `last`, multiples of `every` steps, those not `age` old.

    `age` in seconds.
    """

    last: int | None = None
    every: int | None = None
    age: float | None = None

    def __post_init__(self) -> None:
        for flag, value in (("--keep-last", self.last), ("--keep-every", self.every)):
            if value is not None and value < 1:
                raise UserError(f"{flag} {value}: at least 1; the newest checkpoint always stays")

    @property
    def are_some(self) -> bool:
        return (self.last, self.every, self.age) != (None, None, None)


@dataclass(frozen=True)
class Verdict:
    """What is to become of a checkpoint, and why."""

    summary: Summary
    goes: bool
    why: str


def judge(
    summaries: Sequence[Summary],
    rules: Rules,
    kept: Callable[[int], str | None],
    verifies: Callable[[int], bool],
    now: float,
) -> list[Verdict]:
    """A verdict on each step, oldest first. `kept`: why a step stays whatever the rules say, None where it does not.

    `verifies` reads a checkpoint, and is asked from the newest on until one does. Without rules, only what is left of
    transfers that died goes.
    """
    complete = [summary for summary in summaries if summary.status == "complete"]
    newest = {summary.step for summary in complete[-(rules.last or 1) :]}
    verdicts = {summary.step: _verdict(summary, rules, newest, kept, now) for summary in summaries}
    if any(each.goes and each.summary.status == "complete" for each in verdicts.values()):
        whole = next((each for each in reversed(complete) if verifies(each.step)), None)
        if whole is not None and verdicts[whole.step].goes:
            verdicts[whole.step] = Verdict(whole, False, "the newest that verifies")
        if whole is None:
            raise UserError("no checkpoint here verifies: nothing is removed")
    return list(verdicts.values())


def _verdict(
    summary: Summary, rules: Rules, newest: Collection[int], kept: Callable[[int], str | None], now: float
) -> Verdict:
    if summary.status == "incomplete":
        dead = summary.time is not None and summary.time < now - ABANDONED
        return Verdict(summary, dead, "never completed" if dead else "incomplete, perhaps on its way")
    if summary.status == "damaged":
        return Verdict(summary, False, "damaged: kept for a person to look at")
    reason = kept(summary.step) or _rule(summary, rules, newest, now)
    return Verdict(summary, reason is None, reason or "no rule keeps it")


def _rule(summary: Summary, rules: Rules, newest: Collection[int], now: float) -> str | None:
    """The rule that keeps a checkpoint."""
    if not rules.are_some:
        return "no rule was given"
    if summary.step in newest:
        return "among the newest"
    if rules.every and summary.step % rules.every == 0:
        return f"a multiple of {rules.every}"
    if rules.age is not None and (summary.time is None or summary.time > now - rules.age):
        return "not old enough"
    return None
