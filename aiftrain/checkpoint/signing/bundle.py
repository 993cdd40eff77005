"""The format of a signature: a Sigstore bundle 0.3 around a DSSE envelope around an in-toto statement.

It is what the `model_signing` program (OpenSSF, 1.1) writes with a key, and verifies: sources of the formats are
https://github.com/sigstore/model-transparency (the predicate), https://github.com/secure-systems-lab/dsse (what is
signed: PAE, in protocol.md) and https://github.com/sigstore/protobuf-specs (the bundle). Written here once more
because that program brings clients of services, and tracing, that machines without a network have no use for.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiftrain.errors import DamagedError

SIGNATURE = "model.sig"  # what the model_signing program calls it, too
_MEDIA = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"


@dataclass(frozen=True)
class Bundle:
    """A signed statement. `hint` is the fingerprint of the key that signed it."""

    statement: bytes
    signature: bytes
    hint: str

    @property
    def message(self) -> bytes:
        """What is signed: DSSE's pre-authentication encoding of the statement."""
        return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(self.statement), self.statement)

    def to_json(self) -> str:
        document = {
            "mediaType": _MEDIA,
            "verificationMaterial": {"publicKey": {"hint": self.hint}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(self.statement).decode(),
                "payloadType": _PAYLOAD,
                "signatures": [{"sig": base64.b64encode(self.signature).decode(), "keyid": ""}],
            },
        }
        return json.dumps(document, separators=(",", ":"))


def read_bundle(content: bytes, where: str) -> Bundle:
    """The bundle in `content`. DamagedError unless each byte is as `to_json` writes it, and model_signing too."""
    try:
        document = json.loads(content)
        envelope = document["dsseEnvelope"]
        bundle = Bundle(
            statement=base64.b64decode(envelope["payload"], validate=True),
            signature=base64.b64decode(envelope["signatures"][0]["sig"], validate=True),
            hint=str(document["verificationMaterial"]["publicKey"]["hint"]),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DamagedError(f"{where} is damaged: no signature with a key can be read in it ({error!r})") from error
    if content != bundle.to_json().encode():
        raise DamagedError(f"{where} is damaged: its layout is not what was written")
    return bundle


def statement(name: str, digests: Mapping[str, str], ignored: str) -> bytes:
    """Says that the files of the model `name` have these SHA-256 digests, and that it has no others but `ignored`."""
    paths = sorted(digests)
    root = hashlib.sha256(b"".join(bytes.fromhex(digests[path]) for path in paths)).hexdigest()
    document = {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [ignored]
            },
            "resources": [{"name": path, "algorithm": "sha256", "digest": digests[path]} for path in paths],
        },
    }  # fmt: skip
    return json.dumps(document, separators=(",", ":")).encode()


def digests_in(content: bytes) -> dict[str, str]:
    """The files that a statement speaks of, each with its SHA-256. ValueError where it is no such statement."""
    document: Any = json.loads(content)
    try:
        kinds = document["_type"], document["predicateType"], document["predicate"]["serialization"]["method"]
        if kinds != (_STATEMENT, _PREDICATE, "files"):
            raise ValueError(f"it is {kinds}")
        resources = document["predicate"]["resources"]
        if any(each["algorithm"] != "sha256" for each in resources):
            raise ValueError("its digests are not all SHA-256")
        return {each["name"]: each["digest"] for each in resources}
    except (KeyError, TypeError) as error:
        raise ValueError(f"it lacks {error}") from error
