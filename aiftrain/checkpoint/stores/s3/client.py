"""Requests to one bucket: signed by botocore, sent by our own transport, tried again while there is patience.

botocore reads neither files nor variables of the user's here (profiles, endpoints, retries, monitoring), asks no
metadata service for keys, and knows the endpoint that it is given and no other.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.exceptions import ClientError
from botocore.session import Session

from aiftrain.checkpoint.stores.credentials import Credentials
from aiftrain.checkpoint.stores.gate import Gate
from aiftrain.checkpoint.stores.s3.faults import RefusalError, explain_refusal, explain_silence, passes
from aiftrain.checkpoint.stores.s3.transport import HTTPS, RedirectedError, Transport
from aiftrain.errors import UserError
from aiftrain.run.storage import ServiceSpec

Answer = TypeVar("Answer")

_FIRST_REGION = "us-east-1"  # what S3 calls the only region of a service that has no regions
_LONGEST_PAUSE = 8.0  # seconds


class Client:
    """One bucket of a service. `patience`: seconds that a request is tried again before it has failed.

    `wait`: seconds of silence in the middle of a request after which it counts as failed. None for `credentials`:
    as anybody, without keys.
    """

    def __init__(
        self,
        service: ServiceSpec,
        bucket: str,
        credentials: Credentials | None,
        gate: Gate,
        *,
        patience: float = 120.0,
        wait: float = 60.0,
        connections: int = 8,
    ) -> None:
        self.service, self.bucket, self.gate = service, bucket, gate
        self._credentials, self._patience = credentials, patience
        self._wait, self._connections = wait, connections
        self._connect(service.endpoint)

    @property
    def host(self) -> str:
        return self._transport.host

    def as_anybody(self) -> Client:
        """The same bucket without keys."""
        return Client(self.service, self.bucket, None, self.gate, patience=self._patience, wait=self._wait)

    def like(self, kind: type[Client]) -> Client:
        """The same bucket with the same keys by another kind of client."""
        return kind(self.service, self.bucket, self._credentials, self.gate, patience=self._patience, wait=self._wait)

    def call(
        self, what: str, operation: str, *, expected: tuple[str, ...] | None = (), **parameters: Any
    ) -> dict[str, Any]:
        """The answer to one of botocore's operations on the bucket.

        RefusalError for the codes in `expected`, None: for every code; for all others a MachineError or UserError
        that says what `what` (read ADDRESS) has failed of.
        """
        return self.persist(what, lambda: self.once(operation, **parameters), expected)

    def certificate_until(self, what: str) -> datetime:
        """When the endpoint's certificate ends; errors as for `call`."""
        return self.persist(what, lambda: self._transport.certificate_until())

    def once(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """One try, with the errors of botocore and urllib3: for use in `persist`."""
        answer: dict[str, Any] = getattr(self._botocore, operation)(Bucket=self.bucket, **parameters)
        return answer

    def persist(self, what: str, attempt: Callable[[], Answer], expected: tuple[str, ...] | None = ()) -> Answer:
        """The result of `attempt`, which may be made several times; errors as for `call`."""
        begin, tries, redirected = time.monotonic(), 0, False
        while True:
            try:
                return attempt()
            except RedirectedError as error:
                self._follow(error.url, what, again=redirected)
                redirected = True
                continue
            except Exception as error:
                waited = time.monotonic() - begin
                self._give_up(error, what, expected, waited, after_silence=tries > 0)
            tries += 1
            time.sleep(min(_LONGEST_PAUSE, 0.1 * 2**tries) * random.uniform(0.5, 1.0))

    def _give_up(
        self, error: Exception, what: str, expected: tuple[str, ...] | None, waited: float, *, after_silence: bool
    ) -> None:
        """Raise what there is to say of a failed try; return where another one may help."""
        if passes(error):
            if waited > self._patience:
                raise explain_silence(error, what, self.host, waited) from error
            return
        if isinstance(error, ClientError):
            refusal = RefusalError(error, after_silence=after_silence)
            if expected is None or refusal.code in expected:
                raise refusal from error
            raise explain_refusal(refusal, what, self.host, self.keys_from) from error
        if isinstance(error, OSError) or type(error).__module__.startswith("urllib3"):
            raise explain_silence(error, what, self.host, waited) from error
        raise error

    @property
    def keys_from(self) -> str:
        """Where the keys were found; never a key."""
        return self._credentials.source if self._credentials else "none were given"

    def _follow(self, url: str, what: str, *, again: bool) -> None:
        """Go on at another host, if it may be; not twice in one request."""
        parts = urlsplit(url)
        target = parts.hostname or ""
        if parts.scheme != "https" or again:
            raise UserError(f"cannot {what}: {self.host} sends requests on to {parts.scheme}://{target}, in vain")
        if target != self.host:  # another thread may have gone there already
            self.gate.redirect(self.host, target, parts.port or HTTPS)
            self.close()
            self._connect(f"https://{parts.netloc.rpartition('@')[2]}")

    def _connect(self, endpoint: str) -> None:
        self._transport = Transport(
            endpoint, self.gate, self.service.ca_file, connections=self._connections, connect=10.0, read=self._wait
        )
        self._botocore = _botocore_client(endpoint, self.service.region or _FIRST_REGION, self._credentials)
        self._botocore.meta.events.register_first("before-send.s3", self._send)

    def _send(self, request: AWSPreparedRequest, **options: Any) -> AWSResponse:
        return self._transport.send(request, **options)

    def close(self) -> None:
        self._transport.close()


def _botocore_client(endpoint: str, region: str, credentials: Credentials | None) -> Any:
    """botocore's S3 client, which knows nothing but what stands here."""
    session = Session(session_vars=_without_files_and_variables())
    keys = {}
    if credentials:
        keys = {
            "aws_access_key_id": credentials.access_key,
            "aws_secret_access_key": credentials.secret_key,
            "aws_session_token": credentials.session_token,
        }
    config = Config(
        signature_version="s3v4" if credentials else UNSIGNED,
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",  # other stores than AWS fail at what is sent by default
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": 1},  # `Client.persist` tries again
        proxies={},
        user_agent="aiftrain",
    )
    return session.create_client("s3", region_name=region, endpoint_url=endpoint, config=config, **keys)


def _without_files_and_variables() -> dict[str, tuple[None, None, Any, Any]]:
    """botocore's settings, each at its default: no name of a variable, and no file to read."""
    nothing = {"config_file": os.devnull, "credentials_file": os.devnull}
    return {
        name: (None, None, nothing.get(name, default), conversion)
        for name, (_, _, default, conversion) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }
