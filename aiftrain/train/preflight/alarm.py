"""Ends a rank whose start hangs, and says which rank is to blame: the one that gives no sign of life any more."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from aiftrain.errors import EXIT_FAILED
from aiftrain.train.preflight.board import Board
from aiftrain.train.preflight.finding import name_ranks
from aiftrain.train.process import RankProcess

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_LAST_CALL = timedelta(seconds=3)  # that a living rank has to say so
_NO_ANSWER = 15.0  # seconds after the limit, when rank 0, which should have named the culprit, is it

_ADVICE = "The stacks are in the ranks' logs; train.preflight_seconds is how long they may take"

OnBad = Callable[[Mapping[str, str]], None]  # takes host -> reason


class Alarm:
    """A thread that goes off after `limit` seconds, unless `stop` was called.

    The living ranks then say how far they came. Rank 0 names those that say nothing, or else those that came less far
    than the others, and all end with that message and exit code 1. `hosts` are in order of rank, and only rank 0
    needs them all; `on_bad` gets the nodes that are to blame.
    """

    def __init__(
        self,
        limit: float,
        connect: Callable[[], Store],
        process: RankProcess,
        hosts: Sequence[str],
        on_bad: OnBad,
    ) -> None:
        self._limit, self._connect, self._process = limit, connect, process
        self._hosts, self._on_bad = hosts, on_bad
        self._too_long = f"the checks at the start did not end within {limit:g} s"
        self._stages = ["starting"]
        self._done = threading.Event()
        for action, seconds in ((self._ring, limit), (self._give_up, limit + _NO_ANSWER)):
            threading.Thread(target=self._after, args=(action, seconds), name="alarm", daemon=True).start()

    def stage(self, name: str) -> None:
        """What this rank does from now on, in words that follow `still`."""
        self._stages.append(name)

    def stop(self) -> None:
        """The start went well."""
        self._done.set()

    def _after(self, action: Callable[[], None], seconds: float) -> None:
        if not self._done.wait(seconds):
            action()

    def _ring(self) -> None:
        """A second connection to the store: the first one's lock is held by the main thread that waits in it."""
        print(f"still {self._stages[-1]}; the stacks of all threads:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(sys.stderr.fileno(), all_threads=True)
        board = Board(self._connect(), self._process.rank)
        board.tell("late", self._stages)
        if self._process.rank.rank == 0:
            self._blame(board)
        message = board.words("culprit", [0])[0]
        board.heard("culprit")
        self._end(str(message))

    def _blame(self, board: Board) -> None:
        silent = board.silent("late", _LAST_CALL)
        culprits, reason = silent, "no sign of life from"
        if not silent:
            culprits, doing = _hindmost(board.words("late"))
            reason = f"still {doing}:"
        hosts = sorted({self._hosts[rank] for rank in culprits})
        if culprits and len(hosts) < len(set(self._hosts)):
            self._on_bad({host: f"{reason} {name_ranks(culprits)} at the start" for host in hosts})
        whom = f"{name_ranks(culprits)} on {', '.join(hosts)}" if culprits else "all ranks"
        board.tell("culprit", f"{self._too_long}: {reason} {whom}. {_ADVICE}")
        board.wait_until_heard("culprit", by=self._process.rank.world_size - len(silent) - 1)

    def _give_up(self) -> None:
        host = self._hosts[0]
        if self._process.rank.rank == self._process.rank.local_size:  # the first rank of the second node writes it down
            self._on_bad({host: "no sign of life from rank 0 at the start"})
        self._end(f"{self._too_long}: no sign of life from rank 0 on {host}")

    def _end(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)
        os._exit(self._process.end(EXIT_FAILED, message))


def _hindmost(stages: Sequence[Sequence[str]]) -> tuple[list[int], str]:
    """The ranks that came less far than the others, and what they do; nobody where all came equally far."""
    least, most = min(map(len, stages)), max(map(len, stages))
    doing = next(passed[-1] for passed in stages if len(passed) == least)
    if least == most:
        return [], doing
    return [rank for rank, passed in enumerate(stages) if len(passed) == least], doing
