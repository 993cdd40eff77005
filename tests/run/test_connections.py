"""What the kernel shows of this very process and its children."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from aiftrain.run.connections import Connection, Family, name_of
from aiftrain.run.nodes import parse_address

CONNECTS = """
import socket, sys
connected = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print("connected", flush=True)
sys.stdin.read()
"""


def seen(family: Family, port: int) -> list[Connection]:
    return [each for each in family.connections() if each.port == port]


def test_the_one_who_opened_it_is_seen_and_the_one_who_was_called_is_not() -> None:
    family = Family()
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        assert seen(family, port) == []
        with socket.create_connection(("::1", port)) as out, server.accept()[0]:
            assert seen(family, port) == [Connection(os.getpid(), "tcp", parse_address("::1"), port)]  # type: ignore[arg-type]
            own = out.getsockname()[1]
            assert seen(family, own) == []
    assert seen(family, port) == []


def test_a_connected_datagram_socket_is_seen() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", 9))
        assert [(each.protocol, str(each.address)) for each in seen(Family(), 9)] == [("udp", "127.0.0.1")]


def test_a_child_is_followed_when_its_parent_is_gone() -> None:
    family = Family()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [sys.executable, "-c", CONNECTS, str(port)]
        leaves = "import os, subprocess, sys; subprocess.Popen(sys.argv[1:]); sys.stdout.flush(); input(); os._exit(0)"
        with subprocess.Popen(
            [sys.executable, "-c", leaves, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as parent:
            assert parent.stdout is not None and parent.stdin is not None
            assert parent.stdout.readline() == b"connected\n"
            [connection] = seen(family, port)
            assert connection.process not in (os.getpid(), parent.pid)
            assert name_of(connection.process).startswith("python")
            subprocess.run(["sh", "-c", f"kill -9 {parent.pid}"], check=True)
            parent.wait()
            assert seen(family, port) == [connection]
            os.kill(connection.process, 9)
