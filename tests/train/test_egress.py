"""What a rank does about a connection that its policy forbids."""

from __future__ import annotations

import json
import os
import subprocess
from ipaddress import ip_address

import pytest

from aiftrain.errors import EXIT_USER
from aiftrain.run import quiet
from aiftrain.run.connections import Connection
from aiftrain.run.contacts import Contact
from aiftrain.run.folder import RunFolder, read_lines
from aiftrain.run.rank import Rank
from aiftrain.train.egress import Egress
from tests.conftest import small_spec


def test_who_spoke_and_is_gone_by_now_ends_the_rank_all_the_same(
    run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A curl lives for less than the moment between a look at it and the signal."""
    monkeypatch.setattr(quiet, "loud", list)  # other tests have loaded libraries here in another environment
    gone = subprocess.Popen(["true"])
    gone.wait()
    run_folder.attempt_logs(1).mkdir(parents=True)
    rank = os.fork()
    if rank == 0:
        try:
            spec = small_spec(policy={"name": "strict", "on_violation": "stop"})
            connection = Connection(gone.pid, "tcp", ip_address("192.0.2.1"), 443)
            contact = Contact("curl", "tcp", address="192.0.2.1", port=443, outcome="forbidden")
            Egress(spec, run_folder, 1, Rank())._on_forbidden(contact, connection)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) == EXIT_USER
    note = json.loads((run_folder.attempt_logs(1) / "rank-00000.exit.json").read_text())
    assert note["exit_code"] == EXIT_USER and "curl has a connection to 192.0.2.1" in note["message"]
    assert [event["event"] for event in read_lines(run_folder.events)] == ["egress"]
