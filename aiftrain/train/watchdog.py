"""Notices a hang: a rank that makes no step for too long says where it stands, and ends, so that the run restarts."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time

from aiftrain.errors import EXIT_FAILED
from aiftrain.train.process import RankProcess
from aiftrain.train.rendezvous import TIMEOUT
from aiftrain.train.tracking import Tracker

_FIRST_STEP = 3  # times the limit: the first step compiles, and file systems and networks are cold
_BEFORE_TIMEOUT = 60.0  # seconds before collectives give up: the stacks still show what waits for whom
_LAST_RESORT = 30.0  # seconds after the limit; by then this thread has ended the process, if it was let run
_LOOKS = 20  # at the clock, in the time of one limit


class Watchdog:
    """A thread beside the training. It dumps the stacks of all threads into the rank's log, and later ends the rank.

    Threads run while the main one waits in a collective or for a file. Where one holds the interpreter for itself,
    faulthandler's timer, which needs none, dumps and ends in their place, with exit code 1 too.
    """

    def __init__(self, limit: float, process: RankProcess, tracker: Tracker) -> None:
        """`limit` is in seconds; nothing is watched before the first `alive`."""
        self._limit, self._process, self._tracker = limit, process, tracker
        self._last_step: float | None = None
        self._patience = 0.0
        self._dumped = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def alive(self) -> None:
        """A step begins, or one goes on that may take long: it waits for storage, or evaluates the next source."""
        first = self._last_step is None
        self._last_step, self._dumped = time.monotonic(), False
        self._patience = self._limit * (_FIRST_STEP if first else 1)
        faulthandler.dump_traceback_later(self._patience + _LAST_RESORT, exit=True, file=sys.stderr.fileno())
        if first:
            self._thread.start()

    def stop(self) -> None:
        """No step is to come."""
        self._done.set()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while not self._done.wait(self._limit / _LOOKS):
            assert self._last_step is not None
            silent = time.monotonic() - self._last_step
            if silent > min(self._patience, TIMEOUT.total_seconds() - _BEFORE_TIMEOUT) and not self._dumped:
                self._dump(silent)
            if silent > self._patience and not self._done.is_set():
                self._end(silent)

    def _dump(self, silent: float) -> None:
        self._dumped = True
        print(f"no step for {silent:,.0f} s; the stacks of all threads:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(sys.stderr.fileno(), all_threads=True)

    def _end(self, silent: float) -> None:
        minutes = f"{silent / 60:,.1f} minutes"
        message = f"no step for {minutes} (train.hang_minutes): the stacks of all threads are in this rank's log"
        print(message, file=sys.stderr, flush=True)
        try:
            self._tracker.event("hang", seconds=round(silent, 1))
        finally:  # a full disk keeps nobody here
            os._exit(self._process.end(EXIT_FAILED, message))
