"""The look at what is connected: who is forbidden is told, whatever else goes wrong."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from aiftrain.errors import MachineError
from aiftrain.run.connections import Connection
from aiftrain.run.contacts import Contact, Record
from aiftrain.run.egress import Guard
from aiftrain.run.nodes import Address
from aiftrain.run.policy import PolicySpec
from aiftrain.run.sampler import Sampler


class AllowsNothing(Guard):
    """This machine is forbidden as well: there is no other that a test could speak to."""

    def rule_of(self, address: Address, port: int) -> str | None:
        return None


def test_a_record_that_cannot_be_written_hides_no_forbidden_connection(tmp_path: Path) -> None:
    told: list[int] = []

    def note(contact: Contact, connection: Connection) -> None:
        told.append(connection.port)

    guard = AllowsNothing(PolicySpec(), record=Record(tmp_path / "full" / "disk.jsonl"))
    sampler = Sampler(guard, note)
    ports = {9, 19}
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
        for sock, port in zip((one, other), ports, strict=True):
            sock.connect(("127.0.0.1", port))
        with pytest.raises(MachineError, match=r"disk\.jsonl"):
            sampler.look()
    assert ports <= set(told)
