"""custody.jsonl of an archive: home's, as the shipper last brought it, so that the archive alone shows the chain.

    LINEAGE/
      custody.jsonl
      superseded.0123456789abcdef.custody.jsonl    one that home's did not go on from, named after its content

It is never sealed, for whoever verifies needs no key: beside digests it holds steps, attempts and what happened.
A checkpoint that it does not know is no fault: home's was lost, or somebody copied it here.
"""

from __future__ import annotations

import hashlib

from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.custody import NAME, Account, Custody, read_lines
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


def bring_custody(custody: Custody, archive: Archive) -> str | None:
    """Have the archive's be home's. What is to be told, where that did not go on from the archive's.

    One that is further than home's stays: another home went on. DamagedError where home's is damaged.
    """
    custody.lines()
    ours, name = custody.text(), f"{archive.lineage}/{NAME}"
    theirs = b"".join(archive.store.blocks(name)) if archive.store.entry(name) else b""
    if theirs.startswith(ours):
        return None
    told = None
    if not ours.startswith(theirs):
        aside = f"{archive.lineage}/superseded.{hashlib.sha256(theirs).hexdigest()[:16]}.{NAME}"
        archive.store.write(aside, [theirs], len(theirs))
        told = (
            f"{NAME} at home does not go on from the one that was there: one of the two was begun anew, changed, or is "
            f"of another home of this run. The other one is kept as {aside}"
        )
    archive.store.write(name, [ours], len(ours))
    return told
