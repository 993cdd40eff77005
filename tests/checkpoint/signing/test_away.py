"""Signatures travel: to archives, sealed or not, however late they come, from one to another, and home again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.checkpoint.archive import Archive, open_contents
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.copying import copy, copy_sealed
from aiftrain.checkpoint.fetch import fetch
from aiftrain.checkpoint.places import Away
from aiftrain.checkpoint.saved import saved_at_home, saved_away
from aiftrain.checkpoint.sealing import reseal as resealing
from aiftrain.checkpoint.sealing.in_place import seal_in_place
from aiftrain.checkpoint.sealing.keys import IDENTITY_FILE, Identities, new_identity
from aiftrain.checkpoint.sealing.reseal import reseal, seal_anew
from aiftrain.checkpoint.sealing.stored import SealedCheckpoint
from aiftrain.checkpoint.ship import Destination, Shipper
from aiftrain.checkpoint.signing.bundle import SIGNATURE
from aiftrain.checkpoint.signing.checkpoint import sign
from aiftrain.checkpoint.signing.keys import PublicKey, SigningKey, new_signing_key
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.errors import StoppedEarly, UserError
from tests.checkpoint.conftest import LINEAGE, flip
from tests.checkpoint.shipping import Watched
from tests.checkpoint.signing.conftest import no_passphrase

Save = Callable[[Catalog, int], Checkpoint]


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Identities:
    new_identity(tmp_path / "team")
    monkeypatch.setenv(IDENTITY_FILE, str(tmp_path / "team"))
    return Identities.read(tmp_path / "team")


@pytest.fixture(params=["plain", "sealed"])
def place(request: pytest.FixtureRequest, archive: Archive, team: Identities) -> Archive:
    return archive if request.param == "plain" else Archive(archive.store, LINEAGE, team.public)


def another(tmp_path: Path, name: str = "another") -> Archive:
    (tmp_path / name).mkdir()
    return Archive(FolderStore(tmp_path / name), LINEAGE)


def faults(archive: Archive, team: Identities, key: PublicKey) -> list[str]:
    return [str(fault) for fault in Away(archive).verify(1, identities=team, signer=key)]


def sealed_in(archive: Archive) -> SealedCheckpoint:
    found = archive.find(1)
    assert isinstance(found, SealedCheckpoint)
    return found


def test_a_shipper_brings_it_however_late(
    catalog: Catalog, save: Save, place: Archive, team: Identities, key_file: Path, public_key: PublicKey
) -> None:
    def visit() -> list[int]:
        watch = Watched()
        assert Shipper(catalog, [Destination(place.store.address, lambda: place)], watch).round() == []
        return [arrival.step for arrival in watch.signatures]

    entry = save(catalog, 1)
    visit()
    assert faults(place, team, public_key) == [f"{SIGNATURE}: it is not signed"]
    sign(entry, SigningKey.read(key_file, no_passphrase))
    assert visit() == [1]
    assert faults(place, team, public_key) == []
    assert (b"dsseEnvelope" in b"".join(_contents(place))) != bool(place.recipients)
    before = _names(place)
    visit()
    assert _names(place) == before, "it was brought twice"


def test_a_copy_and_a_fetch_take_it_along(
    signed: Checkpoint, place: Archive, team: Identities, public_key: PublicKey, tmp_path: Path
) -> None:
    copy(saved_at_home(signed), place)
    further, content = another(tmp_path), (signed.folder / SIGNATURE).read_bytes()
    if place.recipients:
        copy_sealed(sealed_in(place), further)
    else:
        copy(saved_away(open_contents(place.find(1))), further)
    assert faults(further, team, public_key) == []
    fetched = fetch(open_contents(further.find(1)), Catalog(tmp_path / "elsewhere"))
    assert (fetched.folder / SIGNATURE).read_bytes() == content


def test_verify_asks_for_the_key_and_for_what_was_signed(
    signed: Checkpoint, place: Archive, team: Identities, public_key: PublicKey, tmp_path: Path
) -> None:
    copy(saved_at_home(signed), place)
    new_signing_key(tmp_path / "other.pem")
    (fault,) = faults(place, team, PublicKey.read(tmp_path / "other.pem.pub"))
    assert "it was signed with key" in fault
    for file in _signatures(place):
        flip(file, 40)
    assert faults(place, team, public_key)
    if place.recipients:
        with pytest.raises(UserError, match="--identity FILE opens it"):
            Away(place).verify(1, signer=public_key)


def test_what_is_set_aside_leaves_no_signature_to_another(
    signed: Checkpoint, place: Archive, team: Identities, public_key: PublicKey
) -> None:
    copy(saved_at_home(signed), place)
    place.set_aside(1, "void")
    (signed.folder / SIGNATURE).unlink()
    copy(saved_at_home(Checkpoint(signed.folder, signed.manifest.model_copy(update={"time": 1.8e9}))), place)
    assert faults(place, team, public_key) == [f"{SIGNATURE}: it is not signed"]


def test_it_is_sealed_with_the_rest_and_for_the_same(
    signed: Checkpoint, archive: Archive, team: Identities, public_key: PublicKey, tmp_path: Path
) -> None:
    copy(saved_at_home(signed), archive)
    sealing = Archive(archive.store, LINEAGE, team.public)
    assert seal_in_place(sealing, 1, lambda sealed: sealed.verify())
    assert SIGNATURE not in {name.rpartition("/")[2] for name in _names(archive)}
    assert faults(archive, team, public_key) == []
    new_identity(tmp_path / "next")
    following = Identities.read(tmp_path / "next")
    reseal(sealed_in(archive), team, following.public)
    assert faults(archive, following, public_key) == []
    seal_anew(sealed_in(archive), following, team.public)
    assert faults(archive, team, public_key) == []


def test_new_keys_that_are_interrupted_leave_the_signature(
    signed: Checkpoint,
    archive: Archive,
    team: Identities,
    public_key: PublicKey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy(saved_at_home(signed), Archive(archive.store, LINEAGE, team.public))

    def killed(*_: object) -> None:
        raise StoppedEarly("before the signature is sealed anew")

    new_identity(tmp_path / "next")
    following = Identities.read(tmp_path / "next")
    with monkeypatch.context() as patch, pytest.raises(StoppedEarly):
        patch.setattr(resealing, "seal_signature", killed)
        seal_anew(sealed_in(archive), team, following.public)
    stray = Path(archive.address) / "step-00000001" / "rank-00000.0123456789abcdef.sealed"  # as a kill would have left
    stray.write_bytes(b"of the old keys")
    seal_anew(sealed_in(archive), team, following.public)
    assert faults(archive, following, public_key) == [] and not stray.exists()


def _names(archive: Archive) -> set[str]:
    return {entry.name for entry in archive.objects(1)}


def _contents(archive: Archive) -> list[bytes]:
    return [(Path(archive.store.address) / name).read_bytes() for name in _names(archive)]


def _signatures(archive: Archive) -> list[Path]:
    return [Path(archive.store.address) / name for name in _names(archive) if "/model." in name]
