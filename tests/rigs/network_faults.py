"""What goes wrong between a client and an S3 service: a thin line, a line that is cut, a server that redirects."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_CHUNK = 16 * 1024


class Line:
    """A TCP relay to a port of this machine, at no more than `bytes_per_s` in both directions together.

    `cut()` resets all connections, new ones go to `target`; `carried` counts bytes. TLS goes through it untouched.
    """

    def __init__(self, port: int, bytes_per_s: float = 1e12) -> None:
        self.bytes_per_s, self.carried = bytes_per_s, 0
        self.target, self._sockets = port, list[socket.socket]()
        self._lock = threading.Lock()
        self._free_at = time.monotonic()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for end in sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:  # nobody is there: the client is to see that
                near.close()
                continue
            with self._lock:
                self._sockets += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(_CHUNK):
                time.sleep(self._turn(len(piece)))
                sink.sendall(piece)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()  # resets it, so that who is still sending hears of it

    def _turn(self, size: int) -> float:
        """Seconds until the line is free for a piece."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size / self.bytes_per_s
            self.carried += size
            return max(0.0, self._free_at - now)


@contextmanager
def line_to(port: int, bytes_per_s: float = 1e12) -> Iterator[Line]:
    line = Line(port, bytes_per_s)
    try:
        yield line
    finally:
        line.close()


@contextmanager
def redirecting(
    folder: Path, target: str, status: int = 307, certificate: str = "good"
) -> Iterator[tuple[str, list[str]]]:
    """A TLS server that sends every request on to `target`, https://HOST:PORT; its endpoint, and what it was sent.

    `folder` has the certificates of an authority: good.crt, good.key and so on.
    """
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _redirect(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append(f"{self.command} {self.path}")
            self.send_response(status)
            self.send_header("Location", f"{target}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _redirect

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{certificate}.crt", folder / f"{certificate}.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://localhost:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
