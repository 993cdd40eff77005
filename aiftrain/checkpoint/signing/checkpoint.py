"""Signing a checkpoint, and asking whether one is what was signed: the signature, then the manifest, then its files.

What is signed are the digests in the manifest, and the manifest's own: not a byte of a shard is read for it, so that
a copy of run.json and manifest.json is enough, on a machine without a network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from aiftrain.checkpoint.catalog import Checkpoint
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.manifest import MANIFEST, Manifest
from aiftrain.checkpoint.saved import Saved
from aiftrain.checkpoint.signing.bundle import SIGNATURE, Bundle, digests_in, read_bundle, statement
from aiftrain.checkpoint.signing.keys import PublicKey, SigningKey
from aiftrain.checkpoint.verify import Fault
from aiftrain.data.files import reading
from aiftrain.errors import DamagedError, MachineError
from aiftrain.run.durable import replace_text


def signed_digests(manifest: Manifest) -> dict[str, str]:
    """All files of a checkpoint, the manifest among them, with their SHA-256."""
    own = hashlib.sha256(manifest.to_json().encode()).hexdigest()
    return {record.name: record.sha256 for record in manifest.files} | {MANIFEST: own}


def sign(entry: Checkpoint, key: SigningKey) -> Path:
    """Write the signature of a checkpoint beside its manifest, in place of one that is there."""
    return _sign(entry.folder, signed_digests(entry.manifest), key)


def sign_model(folder: Path, key: SigningKey) -> Path:
    """The same of a model's folder, as `export` writes one: all files in it are read. UserError where one cannot be."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / SIGNATURE)
    return _sign(folder, {file.relative_to(folder).as_posix(): _digest(file) for file in files}, key)


def _digest(file: Path) -> str:
    with reading(file), file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sign(folder: Path, digests: Mapping[str, str], key: SigningKey) -> Path:
    said = statement(folder.name, digests, SIGNATURE)
    unsigned = Bundle(said, b"", key.public.fingerprint)
    bundle = Bundle(said, key.sign(unsigned.message), unsigned.hint)
    file = folder / SIGNATURE
    with machine_errors("write", file):
        replace_text(file, bundle.to_json())
    return file


def signature_faults(saved: Saved, keys: Sequence[PublicKey]) -> list[Fault]:
    """Why a checkpoint's manifest is not what the holder of one of `keys` signed; none: it is. No shard is read."""
    try:
        content = saved.signature()
    except MachineError as error:
        return [Fault(SIGNATURE, str(error))]
    if content is None:
        return [Fault(SIGNATURE, "it is not signed")]
    try:
        signed = digests_signed(content, f"{saved.address}/{SIGNATURE}", keys)
    except DamagedError as error:
        return [Fault(SIGNATURE, str(error))]
    return [Fault(SIGNATURE, difference) for difference in _differences(signed, signed_digests(saved.manifest))]


def digests_signed(content: bytes, where: str, keys: Sequence[PublicKey]) -> dict[str, str]:
    """The files that a signature speaks of, with their SHA-256. DamagedError where it is of none of `keys`."""
    bundle = read_bundle(content, where)
    key = next((key for key in keys if key.fingerprint == bundle.hint), None)
    if key is None:
        known = " or ".join(key.fingerprint for key in keys)
        raise DamagedError(f"it was signed with key {bundle.hint}, not with {known}")
    if not key.accepts(bundle.signature, bundle.message):
        raise DamagedError(f"the signature is not that of key {key.fingerprint}")
    try:
        return digests_in(bundle.statement)
    except ValueError as error:
        raise DamagedError(f"it is no statement on the files of a model: {error}") from error


def _differences(signed: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(signed.keys() | found.keys()):
        if signed.get(name) != found.get(name):
            yield f"{name}: SHA-256 {signed.get(name, 'none')} was signed, the manifest has {found.get(name, 'none')}"
