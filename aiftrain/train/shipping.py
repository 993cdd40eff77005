"""The shipper beside the ranks: rank 0 starts it, starts it again when it dies, and waits for it at the end of the run.

Training never fails because of it. events.jsonl tells what became of it, logs/attempt-.../shipper.log what it said.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from threading import Event, Thread

from aiftrain.checkpoint.ledger import unshipped_by
from aiftrain.errors import EXIT_OK, EXIT_RESUME, EXIT_USER
from aiftrain.run.folder import RunFolder
from aiftrain.run.rank import Rank
from aiftrain.run.spec import RunSpec
from aiftrain.train.tracking import Tracker

_STARTS = 5  # of the shipper in one attempt
_PAUSE = 10.0  # seconds before it is started again
_LOOK = 1.0  # seconds between two looks whether it lives
_HURRIED = 5.0  # seconds that a run which was asked to stop waits: the next start goes on with what is left
_DYING = 5.0  # seconds between SIGTERM and SIGKILL
_WORDS = 2000  # bytes of its log in which its last words are looked for


class Shipping:
    """The shipping of one attempt, on rank 0 of a run with archives."""

    def __init__(self, folder: RunFolder, spec: RunSpec, tracker: Tracker) -> None:
        self._folder, self._tracker = folder, tracker
        self._command = [sys.executable, "-m", "aiftrain", "ship", str(folder.path), "--follow", "--with-ranks"]
        self._log = folder.attempt_logs(tracker.attempt) / "shipper.log"
        self._is_asked_for = spec.storage.ship == "during"
        self._grace = spec.storage.ship_minutes * 60
        self._ending = Event()
        self._keeper = Thread(target=self._keep, daemon=True)

    def begin(self) -> None:
        """What is at home, and what is saved from now on, is carried to the archives."""
        if self._is_asked_for:
            self._keeper.start()

    def hurry(self) -> None:
        """The run was asked to stop: who asked will not wait for long."""
        self._grace = min(self._grace, _HURRIED)

    def close(self) -> None:
        """No checkpoint is to come: wait a while for those on their way, and tell what an archive lacks."""
        self._ending.set()
        if self._keeper.ident is not None:
            self._keeper.join()
        if lacking := unshipped_by(self._folder):
            command = f"python -m aiftrain ship {shlex.quote(str(self._folder.path))}"
            message = f"an archive lacks some: {command}, on a machine that reaches it"
            self._tracker.event("unshipped", steps=lacking, message=message)

    def _keep(self) -> None:
        """Have a shipper run until the end, within reason."""
        for start in range(1, _STARTS + 1):
            is_last = self._ending.is_set()
            code = self._ship()
            if code == EXIT_OK:
                return
            message = f"{self._last_words()} ({self._log})"
            self._tracker.event("shipper ended", exit_code=code, starts=start, message=message)
            gave_up = self._ending.is_set() and code >= 0
            if is_last or gave_up or code in (EXIT_USER, EXIT_RESUME):
                return  # to start it again would be of no use, or is not wanted
            self._ending.wait(_PAUSE)  # and then once more, if only to carry what is left

    def _ship(self) -> int:
        """Its exit code; negative: a signal. It comes to its end when its standard input does."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=log, stderr=log)
        while process.poll() is None and not self._ending.wait(_LOOK):
            continue
        assert process.stdin is not None
        process.stdin.close()
        try:
            return process.wait(self._grace)
        except subprocess.TimeoutExpired:
            return EXIT_RESUME if _end(process) else EXIT_OK

    def _last_words(self) -> str:
        lines = self._log.read_bytes()[-_WORDS:].decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _end(process: subprocess.Popen[bytes]) -> int:
    """Its exit code. It may be so young that it knows no signal yet, or hang: however it ends, it was asked to."""
    process.terminate()
    try:
        return process.wait(_DYING)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def shipping(folder: RunFolder, spec: RunSpec, rank: Rank, tracker: Tracker) -> Shipping | None:
    """That of rank 0; None on others, and where there is nowhere to ship to."""
    return Shipping(folder, spec, tracker) if spec.storage.archives and rank.rank == 0 else None
