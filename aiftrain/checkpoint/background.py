"""A rank's end of its writer: memory that the two share, and the process (writer.py) that writes what lies in it."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path

from aiftrain.checkpoint import writer
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.writer import Written
from aiftrain.errors import MachineError
from aiftrain.run.memory import MAY_TAKE, available_memory


class BackgroundWriter:
    """One job at a time. The memory has no name: whatever kills the two processes, it is free again."""

    def __init__(self, sharers: int) -> None:
        """`sharers`: as many processes of this machine come for as much memory at the same time."""
        self.restarts = 0  # of the writer, in the job at hand
        self._sharers = sharers
        self._descriptor = os.memfd_create("aiftrain-checkpoint")
        self._memory: mmap.mmap | None = None
        self._process = self._start()

    def memory(self, size: int) -> mmap.mmap | None:
        """At least `size` bytes, the same ones as long as they are enough; None where the machine has too few."""
        if self._memory is None or len(self._memory) < size:
            self._memory = self._enlarged(size)
        return self._memory

    def write(self, path: Path, size: int, mark: int) -> Written:
        """Have the first `size` bytes written to `path`; waits for it, while other threads go on.

        A writer that was killed is started once more, and the job with it. MachineError where that did not help, or
        the file cannot be written.
        """
        job = json.dumps({"path": str(path), "size": size, "mark": mark})
        self.restarts = 0
        answer = self._ask(job)
        if answer is None:
            self._process.wait()
            self._process, self.restarts = self._start(), 1
            answer = self._ask(job)
        if answer is None:
            raise MachineError(f"cannot write {path}: the process that writes it was killed, twice ({self._death()})")
        document = json.loads(answer)
        with machine_errors("write", path):
            if "errno" in document:
                raise OSError(document["errno"], document["strerror"])
        return Written(**document)

    def close(self) -> None:
        """Let the process end. What it was writing is left unfinished."""
        self._process.kill()
        self._process.wait()
        os.close(self._descriptor)

    def _start(self) -> subprocess.Popen[str]:
        """-S and -P: without site-packages it starts in some hundredths of a second."""
        arguments = [str(writer.__file__), str(self._descriptor), str(os.getpid())]
        return subprocess.Popen(
            [sys.executable, "-S", "-P", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[self._descriptor],
        )

    def _ask(self, job: str) -> str | None:
        """The writer's answer; None where it is dead, or dies of it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(job + "\n")
            self._process.stdin.flush()
        except OSError:
            return None
        return self._process.stdout.readline() or None

    def _death(self) -> str:
        code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _enlarged(self, size: int) -> mmap.mmap | None:
        """Every page is taken at once: memory that turns out to be missing later would kill a process."""
        left = available_memory()
        more = size - len(self._memory or b"")
        if left is not None and more * self._sharers > left * MAY_TAKE:
            return None
        try:
            os.posix_fallocate(self._descriptor, 0, size)
            return mmap.mmap(self._descriptor, size)
        except OSError:
            return None
