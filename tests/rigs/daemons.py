"""Processes of a rig: each with a log, all ended in the reverse order of their start, none but our own touched."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

_END_WITH_US = ("setpriv", "--pdeathsig", "KILL")  # tests that are killed leave nothing behind
_PATIENCE = 10.0  # seconds that a process is given to end by itself
SYSTEM_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


class Daemons:
    """Starts processes in the foreground of their own, and ends them."""

    def __init__(self, logs: Path, environ: Mapping[str, str]) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs, self._environ = logs, environ
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str | Path) -> int:
        """The process, in a session of its own: signals for the terminal do not reach it. Gives its number."""
        with (self._logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*_END_WITH_US, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ,
                start_new_session=True,
            )
        self._running[name] = process
        return process.pid

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        process = self._running.pop(name)
        process.send_signal(number)
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        self._running[name].send_signal(number)

    def stop_all(self) -> None:
        for name in reversed(list(self._running)):
            self.stop(name, signal.SIGKILL)

    def await_(self, what: str, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until something is so. RuntimeError with the last words of all logs where it is not in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            ended = [name for name, process in self._running.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                why = f"{', '.join(ended)} ended" if ended else f"not within {seconds} s"
                raise RuntimeError(f"{what}: {why}\n{self.last_words()}")
            time.sleep(0.05)

    def last_words(self) -> str:
        logs = sorted(self._logs.glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs)


class Rig(ABC):
    """A service of several processes, as a context manager: all of it is gone at the end, its `state` too.

    `environ`: of its programs, without the variables whose names begin with one of `foreign`.
    """

    def __init__(self, name: str, *foreign: str) -> None:
        self.state = Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/tmp"))  # short: a socket's path has 108 bytes
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        self.environ["PATH"] = SYSTEM_PATH
        self._daemons = Daemons(self.state / "logs", self.environ)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._down()

    @abstractmethod
    def _start(self) -> None: ...

    def _down(self) -> None:
        self._daemons.stop_all()
        shutil.rmtree(self.state, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different: they are held open together while they are chosen."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
