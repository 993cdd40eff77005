"""The ranks of one attempt on this machine: started under torchrun, stopped by request, never orphaned."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType

from aiftrain.errors import EXIT_FAILED, MachineError
from aiftrain.launch.outcome import rank_of, read_ends
from aiftrain.run.process import die_with_parent, runs

MODULES = {"train": "aiftrain.train", "bench": "aiftrain.train.bench"}  # what ranks run, by the purpose of a run
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequests:
    """Counts SIGINT, SIGTERM and SIGHUP while it is entered; the program looks when it suits it."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequests:
        for sign in _SIGNALS:
            self._before[sign] = signal.signal(sign, self._count_one)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sign, handler in self._before.items():
            signal.signal(sign, handler)  # type: ignore[arg-type]  # typeshed's handler type has no name

    def _count_one(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


class LocalRanks:
    """`world_size` processes `python -m MODULE RUN_FOLDER` and the torchrun above them.

    The kernel sends torchrun SIGTERM when this process ends, however it ends, and torchrun passes it on:
    the ranks save and leave, and nothing runs on unseen.
    """

    def __init__(self, run_folder: Path, logs: Path, world_size: int, module: str) -> None:
        self._run_folder = str(run_folder)
        self._module = module
        self._logs = logs
        self._world_size = world_size
        self._pids: dict[int, int] = {}  # rank -> process, of this node's ranks
        self._launcher: subprocess.Popen[bytes] | None = None

    def start(self, environment: dict[str, str]) -> None:
        """Start torchrun in a session of its own; what it says goes to launcher.log."""
        try:
            with (self._logs / "launcher.log").open("ab") as log:
                self._launcher = subprocess.Popen(
                    self._command(),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=_leave_with(os.getpid()),
                )
        except OSError as error:
            raise MachineError(f"cannot start the ranks: {error.strerror}") from error

    def running(self) -> bool:
        """Whether torchrun or any rank is still there."""
        assert self._launcher is not None
        return self._launcher.poll() is None or bool(self._alive())

    def broken(self) -> bool:
        """Whether a rank has failed or vanished while others still run: they wait for it in vain."""
        alive = self._alive()  # before the notes are read: who is gone by now has left its note
        if not alive:
            return False
        lost = self._pids.keys() - alive.keys()
        return any(end.failed or (end.exit_code is None and end.rank in lost) for end in read_ends(self._logs))

    def stop(self) -> None:
        """Ask every rank to save and leave. torchrun is asked only while ranks are missing: it sets a time limit."""
        for pid in self._alive().values():
            _signal(pid, signal.SIGTERM)
        if len(self._pids) < self._world_size and self._launcher is not None and self._launcher.poll() is None:
            self._launcher.terminate()

    def kill(self) -> None:
        """End the ranks and torchrun at once. A rank leads a process group, which takes its helpers along."""
        for pid in self._alive().values():
            _signal_group(pid, signal.SIGKILL)
        if self._launcher is not None and self._launcher.poll() is None:
            self._launcher.kill()
            self._launcher.wait()

    def kill_waiting(self) -> None:
        """End ranks that wait for a lost one, and say so in their place: they are not the cause."""
        for rank in self._alive():
            note = {"rank": rank, "host": socket.gethostname(), "time": time.time(), "exit_code": EXIT_FAILED}
            note["message"] = "killed: it waited for another rank that was lost"
            with suppress(OSError):  # on a full disk they go unexplained
                (self._logs / f"rank-{rank:05d}.exit.json").write_text(json.dumps(note) + "\n", encoding="utf-8")
        self.kill()

    def _alive(self) -> dict[int, int]:
        for file in self._logs.glob("rank-*.start.json"):
            self._note(file)
        return {rank: pid for rank, pid in self._pids.items() if runs(pid, self._module, self._run_folder)}

    def _note(self, file: Path) -> None:
        rank = rank_of(file)
        if rank in self._pids:
            return
        try:
            note = json.loads(file.read_text(encoding="utf-8"))
            if note["host"] == socket.gethostname():
                self._pids[rank] = int(note["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # not written out yet; the next look finds it

    def _command(self) -> list[str]:
        # fmt: off
        return [
            sys.executable, "-m", "torch.distributed.run",
            "--nnodes=1", f"--nproc-per-node={self._world_size}",
            "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1",
            "--max-restarts=0",
            "-m", self._module, self._run_folder,
        ]
        # fmt: on


def _leave_with(parent: int) -> Callable[[], None]:
    """What the child runs before it becomes torchrun. SIGTERM has torchrun ask its ranks to save and leave."""

    def prepare() -> None:
        die_with_parent(signal.SIGTERM)
        if os.getppid() != parent:  # it died before the kernel was asked
            os._exit(1)

    return prepare


def _signal(pid: int, sign: signal.Signals) -> None:
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return


def _signal_group(pid: int, sign: signal.Signals) -> None:
    try:
        os.killpg(pid, sign)
    except ProcessLookupError:
        _signal(pid, sign)
