"""What became of an attempt: read from the files its ranks left, told as the first real error and an exit code."""

from __future__ import annotations

import json
import shutil
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from aiftrain.errors import EXIT_FAILED, EXIT_OK, EXIT_RESUME, EXIT_USER

_ROOM_FOR_A_WORD = 2**20  # bytes; with less free, a rank may have failed to leave its note

# What a rank says when it fails because another one did. Lower case.
_CONSEQUENCES = (
    "connection closed by peer",
    "connection reset by peer",
    "connection refused",
    "connection was likely closed",
    "broken pipe",
    "timed out waiting",
    "socket timeout",
    "remote process",
    "recv failed",
    "failed to recv",
    "another rank",
)


@dataclass(frozen=True)
class RankEnd:
    """How one rank ended; `exit_code` is None where it left no word, as after SIGKILL.

    `node` is what the scheduler calls the host that it ran on.
    """

    rank: int
    exit_code: int | None
    message: str
    time: float
    log: Path
    host: str = ""
    node: str = ""

    @property
    def failed(self) -> bool:
        return self.exit_code is not None and self.exit_code not in (EXIT_OK, EXIT_RESUME)

    @property
    def is_consequence(self) -> bool:
        """Whether it only says that another rank went away."""
        text = self.message.lower()
        return self.exit_code == EXIT_FAILED and any(words in text for words in _CONSEQUENCES)


@dataclass(frozen=True)
class Outcome:
    """The exit code of an attempt, one line that says why, and the log whose end explains it."""

    exit_code: int
    message: str = ""
    log: Path | None = None


def rank_of(file: Path) -> int:
    """The rank that a file such as rank-00012.start.json is of."""
    return int(file.name.split(".")[0].removeprefix("rank-"))


def read_ends(logs: Path) -> list[RankEnd]:
    """The end of every rank that started."""
    return [_read_end(start) for start in sorted(logs.glob("rank-*.start.json"))]


def judge(logs: Path, world_size: int, *, stop_asked: bool, killed_by_memory: bool) -> Outcome:
    """What became of the attempt whose logs these are.

    The earliest failure that is no consequence of another counts; where there is none, a rank that
    vanished does. A rank that vanished after the user asked to stop was killed by that wish.
    """
    ends = read_ends(logs)
    failures = sorted((end for end in ends if end.failed), key=lambda end: end.time)
    causes = [end for end in failures if not end.is_consequence]
    vanished = [end for end in ends if end.exit_code is None]
    if causes:
        return _failed(causes[0])
    if stop_asked:
        return _stopped(ends, world_size, saved=not vanished and not failures)
    if vanished:
        return _vanished(vanished[0], killed_by_memory)
    if failures:
        return _failed(failures[0])
    if len(ends) < world_size:
        message = f"{world_size - len(ends)} of {world_size} ranks did not start"
        return Outcome(EXIT_FAILED, message, logs / "launcher.log")
    return _stopped(ends, world_size, saved=True)


def last_lines(log: Path, count: int = 12) -> list[str]:
    """The end of a log; bytes that are no UTF-8 are shown as such."""
    try:
        with log.open(encoding="utf-8", errors="backslashreplace") as stream:
            return [line.rstrip() for line in deque(stream, maxlen=count)]
    except OSError:
        return []


def memory_kills() -> int:
    """How many processes this machine's kernel has killed for want of memory since it started."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _read_end(start: Path) -> RankEnd:
    stem, rank = start.name.removesuffix(".start.json"), rank_of(start)
    log = start.with_name(f"{stem}.log")
    host, node = _read_place(start)
    try:
        document = json.loads(start.with_name(f"{stem}.exit.json").read_text(encoding="utf-8"))
        code, message, when = int(document["exit_code"]), str(document["message"]), float(document["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return RankEnd(rank, None, "", 0.0, log, host, node)
    return RankEnd(rank, code, message, when, log, host, node)


def _read_place(start: Path) -> tuple[str, str]:
    """Host and node of a rank; empty where its note is not written out."""
    try:
        note = json.loads(start.read_text(encoding="utf-8"))
        return str(note["host"]), str(note.get("node") or note["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""


def _failed(end: RankEnd) -> Outcome:
    code = EXIT_USER if end.exit_code == EXIT_USER else EXIT_FAILED
    return Outcome(code, f"rank {end.rank}: {end.message or f'left with exit code {end.exit_code}'}", end.log)


def _vanished(end: RankEnd, killed_by_memory: bool) -> Outcome:
    if killed_by_memory:
        reason = "the machine ran out of memory and killed it; a smaller train.micro_batch or more ranks need less"
    elif shutil.disk_usage(end.log.parent).free < _ROOM_FOR_A_WORD:
        reason = f"the disk that holds {end.log.parent} is full"
    else:
        reason = "something killed it (kill -9, or a limit of the machine)"
    return Outcome(EXIT_FAILED, f"rank {end.rank} vanished without a word: {reason}", end.log)


def _stopped(ends: list[RankEnd], world_size: int, *, saved: bool) -> Outcome:
    if len(ends) == world_size and all(end.exit_code == EXIT_OK for end in ends):
        return Outcome(EXIT_OK)
    if saved and ends:
        return Outcome(EXIT_RESUME, "stopped early; everything is saved")
    return Outcome(EXIT_RESUME, "stopped before the ranks could save; the newest complete checkpoint counts")
