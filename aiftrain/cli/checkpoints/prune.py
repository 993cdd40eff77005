"""`checkpoints prune PLACE`: what rules do not keep, shown; removed with `--yes`."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict

from aiftrain.checkpoint.copies import sole_copies
from aiftrain.checkpoint.places import Away, Home
from aiftrain.checkpoint.pruning import ABANDONED, Rules, Verdict, judge
from aiftrain.cli import output
from aiftrain.cli.checkpoints.keep import milestones_of
from aiftrain.cli.checkpoints.places import one_run_at
from aiftrain.cli.progress import Bar, Stop
from aiftrain.errors import EXIT_OK, UserError
from aiftrain.run.lock import RunLock

_AGE = re.compile(r"(\d+)([dh])")
_SECONDS = {"d": 24 * 3600.0, "h": 3600.0}


def run(options: argparse.Namespace) -> int:
    rules = Rules(options.keep_last, options.keep_every, _age(options.older_than))
    place = one_run_at(options)
    with ExitStack() as stack, Stop() as stop, Bar(output.console(as_json=options.json), stop) as bar:
        if options.yes and isinstance(place, Home):
            lock = RunLock(place.folder.lock)
            lock.acquire()  # a run at work keeps its home in order itself
            stack.callback(lock.release)
        verdicts = _judge(place, rules, bar)
        bar.end()
        if options.yes:
            _remove(place, verdicts, stop)
    _tell(place, verdicts, options)
    return EXIT_OK


def _age(text: str | None) -> float | None:
    found = _AGE.fullmatch(text) if text else None
    if text and not found:
        raise UserError(f"--older-than {text}: a number of days or hours, such as 30d or 12h")
    return int(found[1]) * _SECONDS[found[2]] if found else None


def _judge(place: Home | Away, rules: Rules, bar: Bar) -> list[Verdict]:
    summaries = place.summaries()
    milestones, sole = milestones_of(place), sole_copies(place)

    def kept(step: int) -> str | None:
        if step in milestones:
            return f"a milestone: {milestones[step]}"
        return "no other place is known to have it" if step in sole else None

    sizes = {summary.step: summary.size for summary in summaries}
    return judge(summaries, rules, kept, _verifying(place, sizes, bar), time.time())


def _verifying(place: Home | Away, sizes: dict[int, int], bar: Bar) -> Callable[[int], bool]:
    def verifies(step: int) -> bool:
        bar.begin(f"step {step:,}, verified", sizes[step])
        return not place.verify(step, bar.advance)

    return verifies


def _remove(place: Home | Away, verdicts: list[Verdict], stop: Stop) -> None:
    for verdict in verdicts:
        if verdict.goes:
            stop.check()
            place.remove(verdict.summary.step)
    if isinstance(place, Away):
        place.clear_unfinished(ABANDONED)


def _tell(place: Home | Away, verdicts: list[Verdict], options: argparse.Namespace) -> None:
    if options.json:
        documents = [asdict(verdict) for verdict in verdicts]
        output.print_json({"folder": place.address, "removed": options.yes, "checkpoints": documents})
        return
    console = output.console()
    rows = [_row(verdict, done=options.yes) for verdict in verdicts]
    output.show(output.table(("step", "size", "", "why"), rows, numbers=(0, 1)), console)
    freed = sum(verdict.summary.size for verdict in verdicts if verdict.goes)
    if freed and not options.yes:
        console.print(f"--yes removes {output.size(freed)}; nothing is removed yet")


def _row(verdict: Verdict, *, done: bool) -> tuple[str, str, str, str]:
    summary = verdict.summary
    what = ("removed" if done else "would go") if verdict.goes else "stays"
    return f"{summary.step:,}", output.size(summary.size), what, verdict.why
