"""10,000 random damages to what is stored, and every one is found; the newest checkpoint without any is gone on from.

AIFTRAIN_FUZZ=100000 does as many, AIFTRAIN_FUZZ_SEED=7 others than each time.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from aiftrain.checkpoint import listing
from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.saved import saved_at_home
from aiftrain.checkpoint.sealing.envelope import ENVELOPE
from aiftrain.checkpoint.sealing.keys import Identities, new_identity
from aiftrain.checkpoint.sealing.opened import open_checkpoint
from aiftrain.checkpoint.sealing.stored import SealedCheckpoint
from aiftrain.checkpoint.signing.checkpoint import sign, signature_faults
from aiftrain.checkpoint.signing.keys import SigningKey, new_signing_key
from aiftrain.checkpoint.verify import Fault, check_files
from aiftrain.errors import DamagedError, UserError
from tests.checkpoint.damages import KINDS, damage
from tests.checkpoint.shipping import carry

Save = Callable[[Catalog, int], Checkpoint]

STEPS = (1, 2, 3)
SEED = int(os.environ.get("AIFTRAIN_FUZZ_SEED", "0"))
COUNT = -(-int(os.environ.get("AIFTRAIN_FUZZ", "10000")) // 23)  # of one test that damages: there are 23


@dataclass
class Place:
    """Checkpoints of STEPS: the folder of each, and whether verification finds nothing wrong with one."""

    folder: Callable[[int], Path]
    is_good: Callable[[int], bool]

    def files(self) -> dict[Path, bytes]:
        return {file: file.read_bytes() for step in STEPS for file in sorted(self.folder(step).iterdir())}

    def good(self) -> list[int]:
        return [step for step in STEPS if self.is_good(step)]


def survives(place: Place, kind: str) -> None:
    """Those that were damaged are found to be, and no others: a run goes on from the newest of these."""
    dice, files = random.Random(f"{SEED} {kind}"), place.files()
    assert place.good() == list(STEPS)
    for number in range(COUNT):
        with damage(kind, files, dice) as changed:
            harmed = {step for step in STEPS for file in changed if file.parent == place.folder(step)}
            assert not any(map(place.is_good, harmed)), (kind, changed)
            if number % 10 == 0:  # looking at all takes long
                assert place.good() == [step for step in STEPS if step not in harmed], (kind, changed)
    assert place.good() == list(STEPS)


def attempt(verify: Callable[[], list[Fault]]) -> bool:
    """Whether a verification finds nothing wrong. One that lacks its commit is no checkpoint, and says so."""
    try:
        return not verify()
    except (UserError, DamagedError):
        return False


@pytest.fixture
def home(catalog: Catalog, save: Save) -> Catalog:
    for step in STEPS:
        save(catalog, step)
    return catalog


@pytest.fixture
def identities(tmp_path: Path) -> Identities:
    new_identity(tmp_path / "identity.txt")
    return Identities.read(tmp_path / "identity.txt")


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    new_signing_key(tmp_path / "key.pem")
    return SigningKey.read(tmp_path / "key.pem", bytes)


@pytest.mark.parametrize("kind", KINDS)
def test_home(home: Catalog, kind: str) -> None:
    survives(Place(home.step_folder, lambda step: attempt(lambda: home.verify(step))), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_from_the_newest_that_is_good(home: Catalog, kind: str) -> None:
    dice, files = random.Random(f"{SEED} {kind}"), Place(home.step_folder, bool).files()
    for _ in range(COUNT // 10):
        with damage(kind, files, dice) as changed:
            harmed = {home.step_folder(step) for step in STEPS} & {file.parent for file in changed}
            good = [step for step in STEPS if home.step_folder(step) not in harmed]
            assert newest_whole(home) == good[-1], (kind, changed)


def newest_whole(catalog: Catalog) -> int | None:
    """As train/snapshot.py has it, but that nothing is set aside."""
    entry = catalog.latest()
    while entry and (catalog.custody_faults(entry) or check_files(entry.folder, entry.manifest.files)):
        entry = catalog.latest(entry.step - 1)
    return entry.step if entry else None


@pytest.mark.parametrize("kind", ["flip", "cut", "omit"])
def test_custody(home: Catalog, kind: str) -> None:
    """But for its last line being cut off, wholly or not: a kill between a manifest and its line leaves the same."""
    file, dice = home.custody.file, random.Random(f"{SEED} {kind}")
    content = file.read_bytes()
    begins = content[:-1].rindex(b"\n") + 1
    for _ in range(COUNT):
        with damage(kind, {file: content}, dice) as changed:
            found = any(each.faults for each in listing.verify(home))
            left = changed[file]
            assert found != (left is not None and is_unfinished(left, content, begins)), (kind, left)


def is_unfinished(left: bytes, content: bytes, begins: int) -> bool:
    """Whether the last line, which begins there, has no end, and all before it is as it was."""
    return left[:begins] == content[:begins] and b"\n" not in left[begins:]


@pytest.mark.parametrize("kind", KINDS)
def test_signatures(home: Catalog, key: SigningKey, kind: str) -> None:
    """Signatures, and manifests, against each other: no shard is read."""
    for step in STEPS:
        sign(home.find(step), key)
        for shard in home.step_folder(step).glob("rank-*"):
            shard.unlink()

    def is_signed(step: int) -> bool:
        return attempt(lambda: signature_faults(saved_at_home(home.find(step)), [key.public]))

    survives(Place(home.step_folder, is_signed), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_archives(home: Catalog, archive: Archive, kind: str) -> None:
    survives(carried(home, archive), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_sealed_archives(home: Catalog, archive: Archive, identities: Identities, kind: str) -> None:
    """Told by the digests of the objects, without a key."""
    survives(carried(home, Archive(archive.store, archive.lineage, identities.public)), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_contents_of_sealed_archives(home: Catalog, archive: Archive, identities: Identities, kind: str) -> None:
    def faults(step: int) -> list[Fault]:
        sealed = SealedCheckpoint.read(archive.store, archive.place(step))
        return open_checkpoint(sealed, identities).verify() if sealed else [Fault(ENVELOPE, "missing")]

    place = carried(home, Archive(archive.store, archive.lineage, identities.public))
    survives(Place(place.folder, lambda step: attempt(lambda: faults(step))), kind)


def carried(home: Catalog, archive: Archive) -> Place:
    for step in STEPS:
        carry(home.find(step), archive)
    folder = Path(archive.store.address)
    return Place(lambda step: folder / archive.place(step), lambda step: attempt(lambda: archive.verify(step)))
