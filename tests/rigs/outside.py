"""An outside world: hosts beyond this machine that note every connection, and every byte that comes over it.

A site and the world are two network namespaces with a cable between them; nothing truly leaves this machine. Programs
run at the site with `run`. Its /etc/hosts is the rig's: names lead where a test wants. Needs root, `ip` and `unshare`.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Addresses and networks of RFC 5737 and RFC 3849, which exist nowhere.
SITE, WORLD, ALLOWED, ELSEWHERE = "198.51.100.1", "198.51.100.2", "203.0.113.5", "203.0.113.7"
SITE6, WORLD6 = "2001:db8::1", "2001:db8::2"
PORTS = (80, 443, 3128, 8080)
NAMES = {"localhost": "127.0.0.1", "allowed.example": ALLOWED, "foreign.example": WORLD, "pinned.example": ELSEWHERE}
_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
_FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Outside:
    """Started on construction; `close` ends it."""

    def __init__(self, folder: Path) -> None:
        self._notes = folder / "arrived.jsonl"
        self._notes.touch()
        self._site = subprocess.Popen(["unshare", "--net", "--mount", "sleep", "infinity"])
        self._world = subprocess.Popen(["unshare", "--net", sys.executable, __file__, str(self._notes)])
        hosts = folder / "hosts"
        hosts.write_text("".join(f"{address} {name}\n" for name, address in NAMES.items()))
        servers = folder / "resolv.conf"
        servers.write_text("nameserver 127.0.0.1\n")  # where none listens: one that is not there takes 10 s
        _wait_for(lambda: all(_is_elsewhere(process.pid) for process in (self._site, self._world)))
        _lay_cable(self._site.pid, self._world.pid)
        for file in (hosts, servers):
            _in(self._site.pid, "mount", "--bind", str(file), f"/etc/{file.name}")
        _wait_for(lambda: self._notes.read_text().count("\n") == 1)

    @property
    def site(self) -> int:
        """A process in the site's network, for who wants to enter it (setns(2))."""
        return self._site.pid

    def run(self, program: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a Python program at the site."""
        command = [*_nsenter(self._site.pid), sys.executable, "-c", program, *arguments]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environ
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    def arrived(self) -> list[dict[str, Any]]:
        """What came since the last time one asked: its port and data, which a new connection has none of."""
        time.sleep(0.2)  # what was sent has come by then
        lines = self._notes.read_text().splitlines()[1:]
        self._notes.write_text("ready\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        for process in (self._site, self._world):
            process.send_signal(signal.SIGKILL)
            process.wait()


def _lay_cable(site: int, world: int) -> None:
    subprocess.run(
        f"ip link add site0 netns {site} type veth peer name world0 netns {world}".split(), check=True, timeout=30
    )
    for process, end, v4, v6 in ((site, "site0", SITE, SITE6), (world, "world0", WORLD, WORLD6)):
        for command in (
            "link set lo up",
            f"link set {end} up",
            f"address add {v4}/24 dev {end}",
            f"address add {v6}/64 dev {end} nodad",
        ):
            _in(process, "ip", *command.split())
    for address in (ALLOWED, ELSEWHERE):
        _in(world, "ip", "address", "add", f"{address}/32", "dev", "lo")
    _in(site, "ip", "route", "add", "default", "via", WORLD)


def _nsenter(process: int) -> list[str]:
    return ["nsenter", f"--target={process}", "--net", "--mount", "--"]


def _in(process: int, *command: str) -> None:
    subprocess.run([*_nsenter(process), *command], check=True, capture_output=True, timeout=30)


def _is_elsewhere(process: int) -> bool:
    own, other = (Path(f"/proc/{each}/ns/net").readlink() for each in ("self", process))
    return own != other


def _wait_for(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the rig's world did not come up"
        time.sleep(0.01)


def listen(notes: Path) -> None:
    """The world: accept everything, refuse what is asked, and write down when a connection opens and what comes in."""
    selector = selectors.DefaultSelector()
    for port in PORTS:
        server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        selector.register(server, selectors.EVENT_READ, port)
        udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        udp.bind(("::", port))
        selector.register(udp, selectors.EVENT_READ, port)
    _note(notes, "ready")
    while True:
        for key, _ in selector.select():
            sock: Any = key.fileobj
            if sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                selector.register(sock.accept()[0], selectors.EVENT_READ, key.data)
                _note(notes, json.dumps({"port": key.data, "data": ""}))
                continue
            data = sock.recv(65536)
            if data:
                _note(notes, json.dumps({"port": key.data, "data": data.decode("latin-1")}))
                if sock.type == socket.SOCK_STREAM and b"HTTP/1.1" in data:
                    sock.sendall(_GO_ON if b"100-continue" in data else _FORBIDDEN)
            else:
                selector.unregister(sock)
                sock.close()


def _note(notes: Path, line: str) -> None:
    with notes.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")


if __name__ == "__main__":
    listen(Path(sys.argv[1]))
