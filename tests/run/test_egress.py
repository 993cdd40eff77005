"""Every way out of a process is tried, with and without the guard, and what arrives outside is counted."""

from __future__ import annotations

import json
import os
import shutil
from base64 import b64encode
from collections.abc import Iterator

import pytest

from tests.rigs.outside import Outside
from tests.rigs.ways_out import WAYS, secret_of

MAY_MAKE_NETWORKS = os.geteuid() == 0 and all(map(shutil.which, ("ip", "unshare", "nsenter")))
TRY = "import runpy; runpy.run_module('tests.rigs.ways_out', run_name='__main__')"
ALLOWED = "an allowed host"
FORBIDDEN = [name for name in WAYS if name != ALLOWED]

pytestmark = pytest.mark.skipif(not MAY_MAKE_NETWORKS, reason="needs root, and apt-get install iproute2 util-linux")


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    outside = Outside(tmp_path_factory.mktemp("outside"))
    yield outside
    outside.close()


def tried(outside: Outside, *words: str) -> dict[str, str]:
    finished = outside.run(TRY, *words, HF_HUB_DISABLE_UPDATE_CHECK="1")  # it would ask a name server that is not there
    assert finished.returncode == 0, finished.stderr
    answers: dict[str, str] = json.loads(finished.stdout)
    return answers


def test_under_the_guard_every_way_out_is_refused_by_name_and_nothing_arrives(outside: Outside) -> None:
    outside.arrived()
    answers = tried(outside, "guarded", *FORBIDDEN)
    for way, answer in answers.items():
        assert "refused a " in answer and "policy=test allows allowed.example" in answer, (way, answer)
        assert "policy.hosts: " in answer or "policy.addresses.pinned.example: " in answer
    assert outside.arrived() == []


def test_what_the_policy_names_gets_out(outside: Outside) -> None:
    outside.arrived()
    assert tried(outside, "guarded", ALLOWED) == {ALLOWED: "sent"}
    assert "".join(each["data"] for each in outside.arrived()) == secret_of(ALLOWED).decode()


@pytest.mark.slow
def test_without_it_each_way_leads_out(outside: Outside) -> None:
    """The ways are real: what none of them brought out under the guard does arrive."""
    outside.arrived()
    tried(outside, "open")
    arrived = "".join(each["data"] for each in outside.arrived())
    for way in WAYS:
        secret = secret_of(way)
        assert secret.decode() in arrived or b64encode(secret).decode() in arrived, way


def test_a_job_talks_to_itself(outside: Outside) -> None:
    """Loopback, this machine's own address and name, and a node that the scheduler names; another one not."""
    outside.arrived()
    program = """
import os, socket, sys, threading
from aiftrain.run.egress import EgressError, Guard, install
from aiftrain.run.policy import PolicySpec
install(Guard(PolicySpec()))
server = socket.create_server(("0.0.0.0", 0))
port = server.getsockname()[1]
for host in ("127.0.0.1", "localhost", "198.51.100.1", "0.0.0.0"):
    socket.create_connection((host, port), timeout=5).close()
socket.create_connection(("foreign.example", 443), timeout=5).close()
left, right = socket.socketpair()
left.sendall(b"x")
os.environ["SLURM_JOB_NODELIST"] = "other"
try:
    socket.create_connection(("198.51.100.2", 443), timeout=5)
    print("still known")
    socket.create_connection(("foreign.example", 443), timeout=5)
except EgressError as error:
    print(error)
"""
    finished = outside.run(program, SLURM_JOB_NODELIST="node1,foreign.example", AIFTRAIN_SUFFIX="")
    assert finished.stdout.startswith("policy.hosts: refused a connection to 198.51.100.2"), finished.stderr
    assert len(outside.arrived()) == 1
