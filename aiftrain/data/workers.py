"""A pool of worker processes that encode the units of one source."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

import aiftrain
from aiftrain.data.encoding import Job, encode_unit
from aiftrain.data.spans import Unit
from aiftrain.data.tokenizer import load_tokenizer
from aiftrain.errors import MachineError, UserError

NumberedUnit = tuple[int, Unit]

_Process = subprocess.Popen[bytes]


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def encode_units(job: Job, units: list[NumberedUnit], workers: int) -> Iterator[NumberedUnit]:
    """Encode units, on as many processes as there is work for; gives each one back when it is finished.

    Raises what a unit raises (UserError, MachineError), and MachineError when a worker is killed.
    """
    if len(units) <= 1:
        for number, unit in units:
            encode_unit(job, number, unit, load_tokenizer(job.tokenizer))
            yield number, unit
        return
    with Workers(job, min(workers, len(units))) as pool:
        yield from pool.encode(units)


class Workers:
    """Processes of `aiftrain.data.worker`. Leaving the context ends them, whatever they do."""

    def __init__(self, job: Job, count: int) -> None:
        self._processes = [_start(job) for _ in range(count)]
        self._at_work: dict[int, NumberedUnit] = {}

    def encode(self, units: Iterable[NumberedUnit]) -> Iterator[NumberedUnit]:
        """The units in the order in which they are finished."""
        waiting = iter(units)
        with selectors.DefaultSelector() as selector:
            for process, unit in zip(self._processes, waiting, strict=False):
                selector.register(_pipe(process.stdout), selectors.EVENT_READ, process)
                self._give(process, unit)
            while self._at_work:
                for key, _ in selector.select():
                    yield self._finished(key.data)
                    if more := next(waiting, None):
                        self._give(key.data, more)
                    else:
                        selector.unregister(key.fileobj)  # nobody minds whether it lives

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()

    def _give(self, process: _Process, unit: NumberedUnit) -> None:
        self._at_work[process.pid] = unit
        _send(process, json.dumps(unit))

    def _finished(self, process: _Process) -> NumberedUnit:
        line = _pipe(process.stdout).readline()
        if not line:
            raise MachineError(_obituary(process, self._at_work[process.pid][1]))
        answer = json.loads(line)
        if "message" in answer:
            raise (MachineError if answer["machine"] else UserError)(answer["message"])
        return self._at_work.pop(process.pid)


def _start(job: Job) -> _Process:
    """A worker in a session of its own, so that Ctrl-C reaches only us; one thread each, as there is one a core."""
    package = Path(aiftrain.__file__).resolve().parent.parent
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    quiet = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "aiftrain.data.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | quiet,
        start_new_session=True,
    )
    _send(process, job.model_dump_json())
    return process


def _send(process: _Process, line: str) -> None:
    """Write one line; a worker that is dead is found out when its answer is read."""
    try:
        stream = _pipe(process.stdin)
        stream.write(line.encode() + b"\n")
        stream.flush()
    except BrokenPipeError:
        return


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # all of them are made with pipes
    return stream


def _obituary(process: _Process, unit: Unit) -> str:
    code = process.wait()
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    advice = "; the memory may be too small for so many: data.workers=1 takes less" if code == -signal.SIGKILL else ""
    return f"a worker {how} while it encoded {unit[0].file}{advice}"
