"""custody.jsonl of an archive: home's, as `ship` or `copy` last brought it, so that the archive alone shows the chain.

    LINEAGE/
      custody.jsonl
      superseded.0123456789abcdef.custody.jsonl    one that home's did not go on from, named after its content

It is never sealed, for whoever verifies needs no key: beside digests it holds steps, attempts and what happened.
A checkpoint that it does not know is no fault: home's was lost, or somebody copied it here.
"""

from __future__ import annotations

import hashlib

from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.custody import NAME, Account, read_lines
from aiftrain.checkpoint.stores.base import Store
from aiftrain.checkpoint.verify import Fault
from aiftrain.errors import DamagedError


def read_custody(store: Store, lineage: str) -> bytes:
    """All lines; empty where there is none. DamagedError where one is not what was written."""
    name = f"{lineage}/{NAME}"
    text = b"".join(store.blocks(name)) if store.entry(name) else b""
    for _ in read_lines(text, f"{store.address}/{name}"):
        pass
    return text


def custody_faults(store: Store, lineage: str, step: int, digest: str) -> list[Fault]:
    """What speaks against a checkpoint there whose manifest has this digest: an older one was put back."""
    try:
        account = Account(read_lines(read_custody(store, lineage), store.address))
    except DamagedError as error:
        return [Fault(NAME, str(error))]
    refusal = account.voids(step, digest) or account.refuses(step, digest)
    return [Fault("the commit", refusal)] if refusal else []


def bring_custody(text: bytes, archive: Archive) -> bool:
    """Have the archive's be the lines in `text`. False where neither goes on from the other: then nothing is changed.

    One that is further stays: another home went on.
    """
    theirs = _content(archive)
    if theirs.startswith(text):
        return True
    if text.startswith(theirs):
        _write(archive, NAME, text)
        return True
    return False


def supersede_custody(text: bytes, archive: Archive) -> str:
    """Have the archive's be home's, though that does not go on from it, and keep it; what is to be told."""
    theirs = _content(archive)
    aside = f"superseded.{hashlib.sha256(theirs).hexdigest()[:16]}.{NAME}"
    _write(archive, aside, theirs)
    _write(archive, NAME, text)
    return (
        f"{NAME} at home does not go on from the one that was there: one of the two was begun anew, changed, or is "
        f"of another home of this run. The other one is kept as {archive.lineage}/{aside}"
    )


def _content(archive: Archive) -> bytes:
    name = f"{archive.lineage}/{NAME}"
    return b"".join(archive.store.blocks(name)) if archive.store.entry(name) else b""


def _write(archive: Archive, name: str, text: bytes) -> None:
    archive.store.write(f"{archive.lineage}/{name}", [text], len(text))
