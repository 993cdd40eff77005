"""The signature of a sealed checkpoint, which is sealed in its turn: it holds digests of plain content.

LINEAGE/step-00000100/
  model.5d41402abc4b2a76.sealed
  signature.json                   an envelope of this one file: a checkpoint may be signed long after it was sealed
"""

from __future__ import annotations

from aiftrain.checkpoint.sealing.envelope import SIGNATURE_ENVELOPE, Envelope
from aiftrain.checkpoint.sealing.keys import Identities
from aiftrain.checkpoint.sealing.opened import open_blocks
from aiftrain.checkpoint.sealing.stored import SealedCheckpoint, is_sealed_signature, read_envelope, seal_file
from aiftrain.checkpoint.signing.bundle import SIGNATURE
from aiftrain.checkpoint.stores.base import Store


def open_signature(sealed: SealedCheckpoint, identities: Identities) -> bytes | None:
    """The signature of a checkpoint; None where it has none. DamagedError where it is not what was sealed."""
    found = sealed_signature(sealed)
    if found is None:
        return None
    return b"".join(open_blocks(found, SIGNATURE, identities))


def sealed_signature(sealed: SealedCheckpoint) -> SealedCheckpoint | None:
    """Its signature as it is stored. One of another checkpoint that lay in this place is none of this one."""
    envelope = read_envelope(sealed.store, sealed.envelope.context, SIGNATURE_ENVELOPE)
    return SealedCheckpoint(sealed.store, envelope) if envelope and envelope.manifest == sealed.digest else None


def seal_signature(sealed: SealedCheckpoint, content: bytes) -> None:
    """Store the signature of a checkpoint, for the same recipients, in place of one that is there."""
    store, envelope = sealed.store, sealed.envelope
    place, recipients = envelope.context, envelope.recipients
    file = seal_file(store, place, [content], name=SIGNATURE, size=len(content), recipients=recipients)
    _commit(store, envelope.model_copy(update={"files": [file]}))


def copy_signature(sealed: SealedCheckpoint, to: Store) -> None:
    """Have the same checkpoint in another store signed as this one is, if it is; nobody needs to open it."""
    if found := sealed_signature(sealed):
        for file in found.envelope.files:
            name = f"{found.envelope.context}/{file.stored}"
            to.write(name, sealed.store.blocks(name), file.size)
        _commit(to, found.envelope)


def _commit(store: Store, envelope: Envelope) -> None:
    content = envelope.to_json().encode()
    store.write(f"{envelope.context}/{SIGNATURE_ENVELOPE}", [content], len(content))
    kept = {f"{envelope.context}/{file.stored}" for file in envelope.files}
    for entry in list(store.entries(f"{envelope.context}/")):
        if is_sealed_signature(entry.name) and entry.name not in kept:
            store.remove(entry.name)
