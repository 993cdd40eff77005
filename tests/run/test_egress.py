"""Every way out of a process is tried, with and without the guard, and what arrives outside is counted."""

from __future__ import annotations

import json
import os
import shutil
import socket
from base64 import b64encode
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from aiftrain.run import door
from aiftrain.run.contacts import read_contacts
from aiftrain.run.egress import EgressError, Guard, installed
from aiftrain.run.policy import PolicySpec
from tests.rigs.outside import ELSEWHERE, WORLD, WORLD6, Outside
from tests.rigs.ways_out import WAYS, secret_of

MAY_MAKE_NETWORKS = os.geteuid() == 0 and all(map(shutil.which, ("ip", "unshare", "nsenter", "curl")))
TRY = "import runpy; runpy.run_module('tests.rigs.ways_out', run_name='__main__')"
KERNEL = "import runpy; runpy.run_module('tests.rigs.seen_by_kernel', run_name='__main__')"
ALLOWED = "an allowed host"
FORBIDDEN = [name for name in WAYS if name != ALLOWED]

pytestmark = pytest.mark.skipif(
    not MAY_MAKE_NETWORKS, reason="needs root, and apt-get install iproute2 util-linux curl"
)


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


def test_what_native_code_and_children_do_is_seen_and_what_no_rule_allows_is_told(
    outside: Outside, tmp_path: Path
) -> None:
    record = tmp_path / "rank-00000.egress.jsonl"
    finished = outside.run(KERNEL, str(record))
    assert finished.returncode == 0, finished.stderr
    told = json.loads(finished.stdout)
    assert sorted(told) == [
        ["curl", "tcp", WORLD, 443],
        ["curl", "tcp", WORLD6, 80],
        ["curl", "tcp", ELSEWHERE, 443],
        ["python", "tcp", WORLD, 8080],
    ]
    allowed = [seen.contact for seen in read_contacts([record]) if seen.contact.outcome == "allowed"]
    assert {(each.process, each.host, each.rule) for each in allowed} == {
        ("curl", "allowed.example", "policy.hosts"),
        ("python", None, "this machine"),
    }
    assert len(outside.arrived()) == 5  # none of them by the proxy that is not there


@pytest.mark.slow
def test_wandb_online_sends_nothing_to_a_server_that_the_policy_does_not_name(outside: Outside) -> None:
    """Its own process is native code, and not Python's: the environment and the sampler are what holds it back."""
    outside.arrived()
    program = """
import os, tempfile
from aiftrain.run import door
from aiftrain.run.policy import PolicySpec
door.open_to(PolicySpec())
import wandb
os.chdir(tempfile.mkdtemp())
settings = wandb.Settings(mode="online", base_url="http://foreign.example", init_timeout=5, login_timeout=5)
try:
    wandb.init(project="any", settings=settings)
    print("it began")
except Exception as error:
    print(type(error).__name__, error)
"""
    key = {"WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online", "WANDB__SERVICE_WAIT": "30"}
    finished = outside.run(program, **key)
    assert "it began" not in finished.stdout and "Error" in finished.stdout, finished.stderr
    assert outside.arrived() == []


def test_networks_that_a_host_is_pinned_to_are_its_own_without_a_look_up() -> None:
    guard = Guard(PolicySpec(hosts=("store.example.eu",), addresses={"store.example.eu": ("192.0.2.0/24",)}))
    assert guard.connect("192.0.2.77", 443) == "policy.hosts"
    for host, port in (("192.0.2.77", 80), ("192.0.3.77", 443)):
        with pytest.raises(EgressError):
            guard.connect(host, port)


def test_a_store_that_is_judged_later_is_let_out_to() -> None:
    guard = Guard(PolicySpec())
    with pytest.raises(EgressError):
        guard.look_up("store.example.eu")
    guard.allow({("store.example.eu", 8443): "policy.checkpoints"})
    guard.look_up("store.example.eu")
    guard.learn("store.example.eu", {"192.0.2.5"})
    assert guard.connect("192.0.2.5", 8443) == "policy.checkpoints"
    with pytest.raises(EgressError):
        guard.connect("192.0.2.5", 443)


def test_the_jobs_nodes_are_known_by_the_addresses_they_tell() -> None:
    guard, node = Guard(PolicySpec()), ip_address("10.1.0.9")
    assert guard.rule_of(node, 4000) is None
    guard.nodes = frozenset({node})
    assert guard.rule_of(node, 4000) == "the job's nodes"


def test_a_door_is_opened_for_a_while() -> None:
    environ, before = dict(os.environ), installed()
    with door.opened(PolicySpec()):
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        with pytest.raises(EgressError):
            socket.create_connection(("192.0.2.1", 443), timeout=1)
    assert dict(os.environ) == environ
    assert installed() is before
