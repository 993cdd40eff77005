"""Other recipients for what is sealed already.

`reseal` wraps the same data keys anew: only sealed.json is written. Who has kept a copy of the old one, and an
identity that it was for, still opens the objects. `seal_anew` takes new data keys, so that such a copy opens nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

from aiftrain.checkpoint.manifest import FileRecord
from aiftrain.checkpoint.progress import Progress, unwatched
from aiftrain.checkpoint.sealing.envelope import ENVELOPE, SIGNATURE_ENVELOPE, Envelope, SealedFile
from aiftrain.checkpoint.sealing.keys import Identities, wrap
from aiftrain.checkpoint.sealing.opened import open_checkpoint
from aiftrain.checkpoint.sealing.signature import open_signature, seal_signature, sealed_signature
from aiftrain.checkpoint.sealing.stored import SealedCheckpoint, read_envelope
from aiftrain.checkpoint.sealing.writing import UNFINISHED, seal_checkpoint, tidy
from aiftrain.checkpoint.stores.base import Store
from aiftrain.checkpoint.verify import checked
from aiftrain.errors import MachineError


def reseal(sealed: SealedCheckpoint, identities: Identities, recipients: Sequence[str]) -> SealedCheckpoint:
    """Have `recipients` open a checkpoint. No object but its envelope, and its signature's, is read or written.

    UserError where none of `identities` opens it, or a recipient is no age public key; MachineError where the store
    fails: then it is as it was, or as it was to be.
    """
    envelope = resealed(sealed.envelope, identities, recipients)
    signature = sealed_signature(sealed)
    if signature and signature.envelope.recipients != list(recipients):  # else an interrupted one has come so far
        _write(sealed.store, resealed(signature.envelope, identities, recipients), SIGNATURE_ENVELOPE)
    _write(sealed.store, envelope, ENVELOPE)
    sealed.store.remove(f"{envelope.context}/{UNFINISHED}")  # where a kill has left it, it has the old wrapping
    if read_envelope(sealed.store, envelope.context, ENVELOPE) != envelope:
        raise MachineError(f"{sealed.address}/{ENVELOPE} is not what was sent there")
    return SealedCheckpoint(sealed.store, envelope)


def _write(store: Store, envelope: Envelope, name: str) -> None:
    content = envelope.to_json().encode()
    store.write(f"{envelope.context}/{name}", [content], len(content))


def resealed(envelope: Envelope, identities: Identities, recipients: Sequence[str]) -> Envelope:
    """An envelope for other recipients."""

    def anew(file: SealedFile) -> SealedFile:
        secret = identities.unwrap(file.seal.wrapped, envelope.context, envelope.recipients)
        key = base64.b64encode(wrap(secret, recipients)).decode()
        return file.model_copy(update={"seal": file.seal.model_copy(update={"key": key})})

    return envelope.model_copy(
        update={"anew": None, "recipients": list(recipients), "files": [anew(file) for file in envelope.files]}
    )


def seal_anew(
    sealed: SealedCheckpoint, identities: Identities, recipients: Sequence[str], progress: Progress = unwatched
) -> SealedCheckpoint:
    """Seal a checkpoint once more, with new data keys, in its place; its old objects are removed.

    Until all is there the old one counts; who was interrupted later than that gives the same identities again, though
    they open nothing any more. DamagedError where it is damaged, else as `reseal`.
    """
    if _is_anew(sealed.envelope, identities, recipients):
        _finish(sealed, identities, recipients)
        return sealed
    opened = open_checkpoint(sealed, identities)

    def blocks_of(record: FileRecord) -> Iterator[bytes]:
        return checked(opened.blocks(record), record, f"{sealed.store.address}/{opened.object(record)}", progress)

    place = sealed.envelope.context
    signature = open_signature(sealed, identities)
    new = seal_checkpoint(sealed.store, place, opened.manifest, blocks_of, recipients, progress, new=False)
    if signature:
        seal_signature(new, signature)
    for file in sealed.envelope.files:
        sealed.store.remove(f"{place}/{file.stored}")
    return new


def _is_anew(envelope: Envelope, identities: Identities, recipients: Sequence[str]) -> bool:
    done = bool(envelope.anew) and envelope.recipients == list(recipients)
    return done and not set(identities.public) & set(recipients)


def _finish(sealed: SealedCheckpoint, identities: Identities, recipients: Sequence[str]) -> None:
    signature = sealed_signature(sealed)
    if signature and signature.envelope.recipients != list(recipients):
        content = open_signature(sealed, identities)
        assert content is not None, "it is there"
        seal_signature(sealed, content)
    tidy(sealed)
