"""A rank whose main thread holds Python's lock for ever, as a hanging native library does."""

from __future__ import annotations

import ctypes
import os

from aiftrain.run.folder import RunFolder
from aiftrain.run.rank import read_rank
from aiftrain.train import watchdog
from aiftrain.train.process import RankProcess
from aiftrain.train.tracking import Tracker


def main(arguments: list[str]) -> int:
    folder, rank = RunFolder(arguments[0]), read_rank(os.environ)
    spec = folder.read_spec()
    process = RankProcess(folder, 1, rank)
    process.begin()
    watchdog._LAST_RESORT = 1.0
    watchdog._FIRST_STEP = 1
    watchdog.Watchdog(2.0, process, Tracker(folder, spec, rank, 1)).alive()
    hold()
    return 0


def hold() -> None:
    """PyDLL, unlike CDLL, keeps the lock during the call."""
    ctypes.PyDLL(None).sleep(60)
