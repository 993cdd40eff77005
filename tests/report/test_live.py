"""What a person sees of a run: plain lines without a terminal, a panel on one."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

from aiftrain.report.live import duration, follow, sparkline
from aiftrain.run.folder import RunFolder, append_line


def event(folder: RunFolder, name: str, attempt: int = 1, **fields: object) -> None:
    append_line(folder.events, {"time": 0.0, "attempt": attempt, "event": name} | fields)


def step(folder: RunFolder, number: int, attempt: int = 1) -> None:
    record = {"step": number, "attempt": attempt, "time": number * 2.0, "tokens": number * 128, "loss": 5.0}
    rates = {"grad_norm": 0.5, "lr": 1e-3, "tokens_per_s": 64.0, "flop_share": 0.55}
    append_line(folder.metrics, record | rates)


def in_turn(*acts: Callable[[], object]) -> Callable[[], bool]:
    """`running` for `follow`: does one thing at each look, and ends after the last."""
    queue: Iterator[Callable[[], object]] = iter(acts)

    def running() -> bool:
        act = next(queue, None)
        if act is not None:
            act()
        return act is not None

    return running


def watch(folder: RunFolder, *acts: Callable[[], object], terminal: bool = False, attempt: int = 1) -> str:
    screen = io.StringIO()
    console = Console(file=screen, width=110, force_terminal=terminal, color_system=None)
    follow(folder, attempt, in_turn(*acts), console)
    return screen.getvalue()


def whole_run(folder: RunFolder) -> list[Callable[[], object]]:
    logs = folder.attempt_logs(1)
    return [
        lambda: logs.mkdir(parents=True),
        lambda: (logs / "rank-00000.start.json").touch(),
        lambda: event(folder, "start", world_size=2, precision="fp32", matmul_tflops=0.12, parameters=1_500_000),
        lambda: step(folder, 1),
        lambda: event(folder, "saved", step=1, bytes=18_000_000, seconds=0.4),
        *(lambda number=number: step(folder, number) for number in range(2, 6)),
        lambda: append_line(folder.metrics, {"step": 5, "attempt": 1, "time": 9.0, "validation": {"de": 4.5}}),
    ]


def test_plain_lines_tell_the_run_in_order(run_folder: RunFolder) -> None:
    lines = watch(run_folder, *whole_run(run_folder)).splitlines()
    assert lines[:4] == [
        "starting ranks (0 up)",
        "starting ranks (1 up)",
        "1.5 M parameters on 2 ranks in fp32; matmul rate here 0.12 TFLOP/s",
        "first step",
    ]
    assert lines[4].startswith(
        "step 1/20  loss 5.0000  gradient norm 0.500  lr 1.00e-03  64 tokens/s (55% of the matmul"
    )
    assert lines[5] == "saved step 1 (18 MB in 0.4 s)"
    assert "step 5  validation de 4.5000" in lines
    assert lines[-1].startswith("step 5/20") and lines[-1].endswith("left 30 s")


def test_plain_lines_do_not_flood(run_folder: RunFolder) -> None:
    acts = [lambda number=number: step(run_folder, number) for number in range(1, 9)]
    lines = watch(run_folder, *acts).splitlines()
    assert sum(line.startswith("step") for line in lines) == 2  # the first and the last


def test_the_panel_shows_the_same(run_folder: RunFolder) -> None:
    last = watch(run_folder, *whole_run(run_folder), terminal=True)[-2500:]
    for words in ("small  attempt 1", "step 5 of 20", "5.0000", "de 4.5000", "0.500", "640", "30 s", "saved step 1"):
        assert words in last


def test_another_attempts_records_are_not_shown_as_this_ones(run_folder: RunFolder) -> None:
    step(run_folder, 1)
    event(run_folder, "saved", step=1, bytes=1, seconds=1)
    screen = watch(run_folder, lambda: event(run_folder, "resume", attempt=2, step=10), attempt=2)
    assert screen.splitlines() == ["resumed at step 10", "starting ranks (0 up)"]


def test_sparkline() -> None:
    assert sparkline([], 5) == ""
    assert sparkline([1.0, 1.0], 5) == "▁▁"
    assert sparkline([8.0, 4.0, 1.0], 3) == "█▄▁"
    assert sparkline([2.0, 2.0, 0.0, 0.0], 2) == "█▁"
    assert sparkline([1.0, math.nan, 2.0], 3) == "▁·█"
    assert len(sparkline([float(i) for i in range(1000)], 24)) == 24


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "not known yet"),
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (3_900, "1 h 05 min"),
        (180_000, "2 d 02 h"),
        (-3, "0 s"),
    ],
)
def test_duration(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words
