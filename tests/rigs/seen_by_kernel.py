"""A process whose native code and children go out, each without a word to Python: what the sampler makes of them.

`python seen_by_kernel.py RECORD` prints whom it was told of, as JSON, and writes the record.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from aiftrain.run import door, egress
from aiftrain.run.connections import Connection
from aiftrain.run.contacts import Contact, Record
from aiftrain.run.policy import PolicySpec
from aiftrain.run.sampler import Sampler
from tests.rigs.outside import ELSEWHERE, WORLD, WORLD6

POLICY = PolicySpec(
    name="test",
    hosts=("allowed.example", "pinned.example"),
    addresses={"pinned.example": ("192.0.2.0/24",)},
    on_violation="record",
)
TALKS = ("curl", "--silent", "--noproxy", "*")  # and stays, while its standard input is open
WITHOUT_PYTHON = {  # a child's way, and its own child's
    "telnet://allowed.example:443": TALKS,
    f"telnet://{WORLD}:443": TALKS,
    f"telnet://[{WORLD6}]:80": ("sh", "-c", '"$@"; true', "sh", *TALKS),
    f"telnet://{ELSEWHERE}:443": TALKS,  # where pinned.example leads, though it must not
}


def connect_natively(address: str, port: int) -> None:
    """By the C library, as a native library would."""
    libc = ctypes.CDLL(None, use_errno=True)
    sock = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    where = (
        struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + ipaddress.ip_address(address).packed + bytes(8)
    )
    assert libc.connect(sock, where, len(where)) == 0, os.strerror(ctypes.get_errno())


def main(record: Path) -> None:
    told: list[Contact] = []

    def note(contact: Contact, connection: Connection) -> None:
        assert connection.port == contact.port
        told.append(contact)

    guard = door.open_to(POLICY, record=Record(record))
    server = socket.create_server(("127.0.0.1", 0))  # who comes in is none that this process went to
    quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "start_new_session": True}
    children = [subprocess.Popen([*way, url], **quiet) for url, way in WITHOUT_PYTHON.items()]  # type: ignore[call-overload]
    stranger = subprocess.run([*TALKS[:2], f"http://{WORLD}/"], timeout=20)  # heeds the proxy that is not there
    assert stranger.returncode == 7, stranger.returncode  # CURLE_COULDNT_CONNECT
    connect_natively(WORLD, 8080)
    local = socket.create_connection(server.getsockname(), timeout=5)
    time.sleep(0.3)  # they are connected
    Sampler(guard, note).look()
    for child in children:
        os.killpg(child.pid, signal.SIGKILL)
    local.close()
    egress.close()
    print(json.dumps([[c.process, c.protocol, c.address, c.port] for c in told]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
