"""The ranks of a run that live on this machine, found by the notes they leave: for who did not start them."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

from aiftrain.errors import UserError
from aiftrain.run.folder import RunFolder
from aiftrain.run.lock import is_held, read_holder
from aiftrain.run.process import runs


def ranks_here(folder: RunFolder) -> dict[int, int]:
    """Rank -> process of the newest attempt, of those that run on this host now."""
    run = str(folder.path.resolve())
    notes = map(_read_note, sorted(folder.attempt_logs(folder.last_attempt()).glob("rank-*.start.json")))
    here = {rank: pid for rank, pid, host in filter(None, notes) if host == socket.gethostname()}
    return {rank: pid for rank, pid in here.items() if runs(pid, run)}


def where_it_runs(folder: RunFolder) -> str | None:
    """Which process trains the run now, and where; None where none does.

    The lock tells it, as far as the file system shares locks between hosts; on this host the ranks' notes too.
    """
    if is_held(folder.lock):
        return str(read_holder(folder.lock) or "a process that did not say its name")
    pids = ranks_here(folder)
    return f"{len(pids)} processes on {socket.gethostname()}, starting" if pids else None


def signal_ranks(folder: RunFolder, number: signal.Signals) -> int:
    """Send a signal to all ranks on this host; how many there are. UserError where they are another person's."""
    pids = ranks_here(folder)
    for pid in pids.values():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        except PermissionError:
            raise UserError(f"process {pid} of {folder.path} is another user's: only they may stop it") from None
    return len(pids)


def _read_note(file: Path) -> tuple[int, int, str] | None:
    try:
        note = json.loads(file.read_text(encoding="utf-8"))
        return int(note["rank"]), int(note["pid"]), str(note["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not written out yet
