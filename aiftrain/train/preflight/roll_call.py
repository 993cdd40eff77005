"""Are all ranks there? Before anything waits for all of them without a word, those that did not come are named."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from aiftrain.errors import MachineError
from aiftrain.run.hostlist import expand
from aiftrain.run.rank import Rank
from aiftrain.train.preflight.alarm import OnBad
from aiftrain.train.preflight.board import Board

_NAMED = 8


def call_roll(board: Board, rank: Rank, logs: Path, patience: timedelta, on_bad: OnBad) -> list[str]:
    """Wait for all ranks. Gives their hosts, in order of rank, on rank 0; elsewhere only the first is sure to be right.

    MachineError on all ranks that came, where others did not within `patience`. `logs` is the attempt's folder;
    `on_bad` is told, by rank 0, of nodes whose ranks did not come while those of others did.
    """
    board.tell("here", socket.gethostname())
    if rank.rank == 0:
        missing = board.silent("here", patience)
        there = [r for r in range(rank.world_size) if r not in missing]
        hosts: list[str | None] = [None] * rank.world_size
        for number, host in zip(there, board.words("here", there), strict=True):
            hosts[number] = host
        trouble = _absent(missing, hosts, logs, patience, on_bad) if missing else ""
        board.tell("roll", {"trouble": trouble, "hosts": hosts[:1] * rank.world_size})
    else:
        there, hosts = [], []
    word = board.words("roll", [0])[0]
    board.heard("roll")
    if word["trouble"]:
        board.wait_until_heard("roll", by=len(there))
        raise MachineError(word["trouble"])
    return [host or "" for host in hosts or word["hosts"]]


@dataclass(frozen=True)
class _Absentee:
    """A rank that did not come, as far as its notes and Slurm's list of nodes tell."""

    rank: int
    host: str | None
    ended: str | None  # its last words; None: it left none
    started: bool

    def __str__(self) -> str:
        where = f"rank {self.rank}" + (f" on {self.host}" if self.host else "")
        if self.ended is not None:
            return f"{where} ended: {self.ended}"
        return f"{where} {'started and did not come' if self.started else 'did not start'}"


def _absent(missing: Sequence[int], hosts: Sequence[str | None], logs: Path, patience: timedelta, on_bad: OnBad) -> str:
    nodes = _planned_hosts(hosts, os.environ)
    absentees = [_absentee(rank, nodes[rank], logs) for rank in missing]
    suspects = {each.host: str(each) for each in absentees if each.host and each.ended is None}
    if any(host and host not in suspects for host in hosts):  # some node is well
        on_bad(suspects)
    named = "; ".join(map(str, absentees[:_NAMED]))
    more = f"; and {len(absentees) - _NAMED} more" if len(absentees) > _NAMED else ""
    count = f"{len(missing)} of {len(hosts)} ranks did not come within {patience.total_seconds():g} s"
    return f"{count}: {named}{more}"


def _absentee(rank: int, host: str | None, logs: Path) -> _Absentee:
    start, end = (_note(logs / f"rank-{rank:05d}.{kind}.json") for kind in ("start", "exit"))
    return _Absentee(rank, start.get("host", host), end.get("message"), bool(start))


def _note(file: Path) -> dict[str, Any]:
    try:
        note = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _planned_hosts(hosts: Sequence[str | None], environ: Mapping[str, str]) -> list[str | None]:
    """Where each rank should be: Slurm gives nodes their ranks in blocks. Those that came must bear this out."""
    nodes = expand(environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", ""))
    if not nodes or len(hosts) % len(nodes):
        return [None] * len(hosts)
    planned = [nodes[rank // (len(hosts) // len(nodes))] for rank in range(len(hosts))]
    agrees = all(host is None or host == name for host, name in zip(hosts, planned, strict=True))
    return list(planned) if agrees else [None] * len(hosts)
