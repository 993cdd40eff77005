"""Whom a rank may speak to, whom it speaks to, and what becomes of it where that is not allowed."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, NoReturn

from aiftrain.errors import EXIT_USER, UserError
from aiftrain.run import door, quiet, residency
from aiftrain.run.connections import Connection
from aiftrain.run.contacts import Contact, Record
from aiftrain.run.folder import RunFolder
from aiftrain.run.nodes import Address, own_addresses, parse_address
from aiftrain.run.policy import spelled
from aiftrain.run.rank import Rank
from aiftrain.run.sampler import Sampler
from aiftrain.run.spec import RunSpec
from aiftrain.train.preflight.board import Board
from aiftrain.train.process import RankProcess
from aiftrain.train.tracking import write_event

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store


class Egress:
    """One rank's. Its door is open once this is made; `watch` follows when all ranks are there."""

    def __init__(self, spec: RunSpec, folder: RunFolder, attempt: int, rank: Rank) -> None:
        self._policy, self._folder, self._attempt, self._rank = spec.policy, folder, attempt, rank
        _refuse_loud_libraries()
        hosts = residency.tracking_hosts(spec)
        if spec.storage.ship == "during":
            hosts |= residency.archive_hosts(spec.storage.archives)
        self._guard = door.open_to(spec.policy, hosts, Record(folder.egress(attempt, rank.rank)))

    def watch(self, store: Store) -> None:
        """From now on look at what native libraries and children do. Every rank calls it."""
        self._guard.nodes = _addresses_of_all(Board(store, self._rank))
        Sampler(self._guard, self._on_forbidden).start()

    def _on_forbidden(self, contact: Contact, connection: Connection) -> None:
        """Tell it; where the policy says so, end who did it, and this rank with it: no step is worth more bytes."""
        message = self._message(contact)
        print(message, file=sys.stderr, flush=True)
        try:
            if self._rank.rank == 0:
                write_event(self._folder, self._attempt, "egress", message=message, **asdict(contact))
        finally:  # a full disk lets nobody go on
            if self._policy.on_violation == "stop":
                self._end(connection.process, message)

    def _end(self, process: int, message: str) -> NoReturn:
        """Of whoever spoke, who may be gone by now, and of this rank."""
        if process != os.getpid():
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        os._exit(RankProcess(self._folder, self._attempt, self._rank).end(EXIT_USER, message))

    def _message(self, contact: Contact) -> str:
        where = spelled(str(contact.address), contact.port or 0)
        named = f" ({contact.host})" if contact.host else ""
        return (
            f"policy.hosts: {contact.process} has a connection to {where}{named} by {contact.protocol}, which "
            f"policy={self._policy.name} does not allow. If that is a node of the job: policy.networks=[NETWORK]; if "
            "it may be told what this run knows: policy.hosts=[HOST]; policy.on_violation=record only writes it down"
        )


def _refuse_loud_libraries() -> None:
    """UserError where a library would phone home in spite of the environment."""
    loud = list(quiet.loud())
    if loud:
        raise UserError(f"a library would phone home: {'; '.join(loud)}. What has changed it since this rank began?")


def _addresses_of_all(board: Board) -> frozenset[Address]:
    """Of all nodes of the job: of their fast interconnects too, which no name may lead to."""
    board.tell("addresses", [str(address) for address in own_addresses()])
    if board.is_first:
        board.tell("all addresses", sorted({address for each in board.words("addresses") for address in each}))
    found = map(parse_address, board.words("all addresses", [0])[0])
    return frozenset(address for address in found if address)
