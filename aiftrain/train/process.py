"""This rank as a process: its log file, the signals that ask it to stop, and the notes it leaves for the launcher."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from aiftrain.errors import EXIT_FAILED, AiftrainError, UserError
from aiftrain.run import egress
from aiftrain.run.door import shut
from aiftrain.run.folder import RunFolder
from aiftrain.run.process import die_with_parent
from aiftrain.run.rank import Rank, read_rank


class StopRequest:
    """Remembers a signal that asks the run to save and leave. The handler only sets it; the loop looks once a step."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self) -> None:
        self.signal: str | None = None

    def listen(self) -> None:
        """Take over the signals; to be called before the slow imports, so that an early signal is not lost."""
        for number in self.SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number).name


class RankProcess:
    """The files of one rank in one attempt: rank-00000.log, .start.json and .exit.json."""

    def __init__(self, folder: RunFolder, attempt: int, rank: Rank) -> None:
        self.rank = rank
        self._stem = folder.attempt_logs(attempt) / f"rank-{rank.rank:05d}"

    def begin(self) -> None:
        """Send everything this process prints to its log, native libraries too, and say that it lives."""
        self._stem.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(self._file("log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log, stream.fileno())
        os.close(log)
        self._write("start.json", {"pid": os.getpid()})

    def end(self, exit_code: int, message: str) -> int:
        """Say how this rank ended, and give the code to leave with. A rank that has not said so counts as killed."""
        try:
            self._write("exit.json", {"exit_code": exit_code, "message": message})
        except OSError as error:  # a full disk: the exit code still speaks, and a traceback would bury the message
            print(f"cannot write {self._file('exit.json')}: {error.strerror}", file=sys.stderr)
            return exit_code
        return self.rank.exit_status(exit_code)

    def _file(self, ending: str) -> Path:
        return self._stem.with_name(f"{self._stem.name}.{ending}")

    def _write(self, ending: str, fields: dict[str, object]) -> None:
        where = {"host": socket.gethostname(), "node": os.environ.get("SLURMD_NODENAME")}
        record = {"rank": self.rank.rank, **where, "time": time.time()} | fields
        self._file(ending).write_text(json.dumps(record) + "\n", encoding="utf-8")


Work = Callable[[RunFolder, int, Rank, StopRequest], int]  # folder, attempt, rank, stop -> exit code


def live(arguments: list[str], module: str, work: Work) -> int:
    """The life of one rank's process, whatever its work: `python -m MODULE RUN_FOLDER`. Gives the exit code."""
    stop = StopRequest()
    stop.listen()
    die_with_parent(signal.SIGTERM)  # a rank without a launcher saves and leaves
    shut()
    if len(arguments) != 1:
        print(f"usage: python -m {module} RUN_FOLDER", file=sys.stderr)
        return UserError.exit_code
    folder, attempt = RunFolder(arguments[0]), int(os.environ.get("AIFTRAIN_ATTEMPT", "1"))
    process: RankProcess | None = None
    try:
        rank = read_rank(os.environ)
        process = RankProcess(folder, attempt, rank)
        process.begin()
        code, message = work(folder, attempt, rank, stop), ""
    except AiftrainError as error:
        code, message = error.exit_code, str(error)
    except Exception as error:
        traceback.print_exc()
        code, message = EXIT_FAILED, f"{type(error).__name__}: {error}"
    if message:
        print(message, file=sys.stderr)
    egress.close()
    return code if process is None else process.end(code, message)


def leave(status: int) -> NoReturn:
    """End this process. Where one rank failed, others may hang in native threads of the process group: no waiting."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
