"""Whether a service compares what arrives with the SHA-256 that the request was signed with.

One that does spares the sender the MD5 of Content-MD5, which takes a core more than twice as long. It is tried: a part
is changed on its way. No object comes of it.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ClientError

from aiftrain.checkpoint.stores.s3.client import Client
from aiftrain.checkpoint.stores.s3.faults import RefusalError, code_of
from aiftrain.checkpoint.stores.s3.probe import probe_key
from aiftrain.checkpoint.stores.s3.upload import Upload, bare, md5

_SENT, _CHANGED = b"as it was signed", b"changed after it"
_MISMATCH = "XAmzContentSHA256Mismatch"


class _Changing(Client):
    """Of every request that it signs the body is replaced by another of the same length."""

    def _send(self, request: AWSPreparedRequest, **options: Any) -> AWSResponse:
        request.body = _CHANGED
        return super()._send(request, **options)


def compares_signed_content(client: Client, prefix: str) -> bool:
    """Also that it answers with the MD5 of a part, which tells whether the parts were put together rightly."""
    what = f"find out what {client.host} compares"
    with Upload(client, probe_key(prefix), what, signed=True) as upload, closing(client.like(_Changing)) as changing:
        part = upload.place(1) | {"Body": _SENT}
        try:
            answer = client.call(what, "upload_part", expected=None, **part)
            notices = client.persist(what, lambda: _notices(changing, part), None)
        except RefusalError:
            return False
    return notices and bare(answer["ETag"]) == md5(_SENT).hex()


def _notices(changing: Client, part: dict[str, Any]) -> bool:
    try:
        changing.once("upload_part", **part)
    except ClientError as error:
        if code_of(error) != _MISMATCH:
            raise
        return True
    return False
