"""How requests travel to an S3 service: over TLS, to addresses that may be connected to, by no proxy, to no other host.

botocore makes and signs requests and reads answers. Its own HTTP session, which knows proxies and variables, is never
used: `Transport.send` stands in for it (the event before-send). A redirect is raised, not followed.
"""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

from botocore.awsrequest import AWSHTTPSConnection, AWSHTTPSConnectionPool, AWSPreparedRequest, AWSResponse
from urllib3 import Timeout
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection

from aiftrain.checkpoint.stores.gate import Gate
from aiftrain.errors import UserError

HTTPS = 443
_REDIRECTS = (301, 302, 303, 307, 308)


class RedirectedError(Exception):
    """The service wants the request to go to `url` instead."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


class _Connection(AWSHTTPSConnection):  # type: ignore[misc]  # botocore has no types; its class knows 100-continue
    """Asks the gate about every address of the host before it connects to one of them."""

    def __init__(self, *arguments: Any, gate: Gate, wait: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._gate, self._wait = gate, wait

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self._wait)  # of sending, too: urllib3 would have it be as short as that of connecting

    def _new_conn(self) -> socket.socket:
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            reason = error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
            raise NameResolutionError(self.host, self, reason) from error
        addresses = list(dict.fromkeys(str(target[0]) for *_, target in found))
        for address in addresses:
            self._gate.address(self.host, address, self.port)
        return self._first_of(addresses)

    def _first_of(self, addresses: list[str]) -> socket.socket:
        failed: OSError = OSError("no address")
        for address in addresses:
            try:
                return create_connection((address, self.port), self.timeout, None, self.socket_options)
            except OSError as error:
                failed = error
        if isinstance(failed, TimeoutError):
            raise ConnectTimeoutError(self, f"{self.host} does not answer") from failed
        raise NewConnectionError(self, f"{failed.strerror or failed}") from failed


class _Pool(AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _Connection


class Transport:
    """Connections to one endpoint, https://HOST[:PORT]. Timeouts in seconds, of each wait for the other side."""

    def __init__(
        self, endpoint: str, gate: Gate, ca_file: str | None, *, connections: int, connect: float, read: float
    ) -> None:
        parts = urlsplit(endpoint)
        self.host, port = parts.hostname or "", parts.port or HTTPS
        gate.endpoint(self.host, port)
        self._pool = _Pool(
            self.host,
            port,
            ssl_context=_trusting(ca_file),
            timeout=Timeout(connect=connect, read=read),
            maxsize=connections,
            retries=False,
            gate=gate,
            wait=read,
        )

    def send(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        """The answer to a signed request. RedirectedError, or an error of urllib3, where there is none."""
        parts = urlsplit(request.url)
        answer = self._pool.urlopen(
            request.method,
            f"{parts.path}?{parts.query}" if parts.query else parts.path,
            body=request.body,
            headers={name: _text(value) for name, value in request.headers.items()},
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        if answer.status in _REDIRECTS:
            answer.drain_conn()
            raise RedirectedError(urljoin(request.url, answer.headers.get("Location", "")))
        response = AWSResponse(request.url, answer.status, answer.headers, answer)
        if not request.stream_output:
            _ = response.content  # read to its end now, so that the connection can be used again
        return response

    def certificate_until(self) -> datetime:
        """When the certificate of who answers ends. It is asked over a connection of its own; errors of urllib3."""
        connection = self._pool._new_conn()
        try:
            connection.connect()
            ends: str = connection.sock.getpeercert()["notAfter"]
        finally:
            connection.close()
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC)

    def close(self) -> None:
        self._pool.close()


def _text(value: str | bytes) -> str | bytes:
    """Expect stays bytes: botocore's connection compares it as such."""
    return value if value == b"100-continue" or isinstance(value, str) else value.decode()


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    """TLS 1.2 or newer, with the certificates of `ca_file` or the system's."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        reason = error.strerror or "it holds no certificates"
        raise UserError(f"storage.service.ca_file: cannot read {ca_file}: {reason}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
