"""Signing a checkpoint, and asking whether one is what was signed: the signature, then the manifest, then its files.

What is signed are the digests in the manifest, and the manifest's own: not a byte of a shard is read for it, so that
a copy of run.json and manifest.json is enough, on a machine without a network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from aiftrain.checkpoint.catalog import Checkpoint
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.manifest import MANIFEST, Manifest
from aiftrain.checkpoint.saved import Saved
from aiftrain.checkpoint.signing.bundle import SIGNATURE, Bundle, digests_in, read_bundle, statement
from aiftrain.checkpoint.signing.keys import PublicKey, SigningKey
from aiftrain.checkpoint.verify import Fault
from aiftrain.errors import DamagedError, MachineError
from aiftrain.run.durable import replace_text


def signed_digests(manifest: Manifest) -> dict[str, str]:
    """All files of a checkpoint, the manifest among them, with their SHA-256."""
    own = hashlib.sha256(manifest.to_json().encode()).hexdigest()
    return {record.name: record.sha256 for record in manifest.files} | {MANIFEST: own}


def sign(entry: Checkpoint, key: SigningKey) -> Path:
    """Write the signature of a checkpoint beside its manifest, in place of one that is there."""
    said = statement(entry.folder.name, signed_digests(entry.manifest), SIGNATURE)
    unsigned = Bundle(said, b"", key.public.fingerprint)
    bundle = Bundle(said, key.sign(unsigned.message), unsigned.hint)
    file = entry.folder / SIGNATURE
    with machine_errors("write", file):
        replace_text(file, bundle.to_json())
    return file


def signature_faults(saved: Saved, key: PublicKey) -> list[Fault]:
    """Why the manifest of a checkpoint is not what the holder of `key` signed; none: it is. No shard is read."""
    try:
        content = saved.signature()
    except MachineError as error:
        return [Fault(SIGNATURE, str(error))]
    if content is None:
        return [Fault(SIGNATURE, "it is not signed")]
    return [Fault(SIGNATURE, fault) for fault in _faults(content, f"{saved.address}/{SIGNATURE}", saved.manifest, key)]


def _faults(content: bytes, where: str, manifest: Manifest, key: PublicKey) -> Iterator[str]:
    try:
        bundle = read_bundle(content, where)
    except DamagedError as error:
        yield str(error)
        return
    if bundle.hint != key.fingerprint:
        yield f"it was signed with key {bundle.hint}, not with {key.fingerprint}"
    elif not key.accepts(bundle.signature, bundle.message):
        yield f"the signature is not that of key {key.fingerprint}"
    else:
        yield from _differences(bundle.statement, signed_digests(manifest))


def _differences(said: bytes, found: Mapping[str, str]) -> Iterator[str]:
    try:
        signed = digests_in(said)
    except ValueError as error:
        yield f"it is no statement on the files of a model: {error}"
        return
    for name in sorted(signed.keys() | found.keys()):
        if signed.get(name) != found.get(name):
            yield f"{name}: SHA-256 {signed.get(name, 'none')} was signed, the manifest has {found.get(name, 'none')}"
