"""Whether a service compares what arrives with the SHA-256 that the request was signed with.

One that does spares the sender the MD5 of Content-MD5, which takes a core more than twice as long. It is tried: a
request is changed on its way. Until then a service is taken not to.
"""

from __future__ import annotations

from typing import Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ClientError

from aiftrain.checkpoint.stores.s3.client import Client
from aiftrain.checkpoint.stores.s3.faults import RefusalError, code_of
from aiftrain.checkpoint.stores.s3.probe import probe
from aiftrain.checkpoint.stores.s3.upload import bare, md5

_SENT, _CHANGED = b"as it was signed", b"changed after it"
_MISMATCH = "XAmzContentSHA256Mismatch"


class _Changing(Client):
    """Of every request that it signs the body is replaced by another of the same length."""

    def _send(self, request: AWSPreparedRequest, **options: Any) -> AWSResponse:
        request.body = _CHANGED
        return super()._send(request, **options)


def compares_signed_content(client: Client, prefix: str) -> bool:
    """Also that it answers with an MD5 of what it stored, which tells whether the parts were put together rightly."""
    what = f"find out what {client.host} compares"
    with probe(client, prefix) as key:
        try:
            answer = client.call(what, "put_object", expected=None, Key=key, Body=_SENT)
            notices = client.persist(what, lambda: _notices(client, key), None)
        except RefusalError:
            return False
    return notices and bare(answer["ETag"]) == md5(_SENT).hex()


def _notices(client: Client, key: str) -> bool:
    try:
        client.like(_Changing).once("put_object", Key=key, Body=_SENT)
    except ClientError as error:
        if code_of(error) != _MISMATCH:
            raise
        return True
    return False
