"""policy.signed_by: what none of the keys vouches for does not count, and the refusal names the rule."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.saved import Saved, saved_at_home
from aiftrain.checkpoint.signing.bundle import SIGNATURE
from aiftrain.checkpoint.signing.checkpoint import sign_model
from aiftrain.checkpoint.signing.keys import PublicKey, SigningKey, new_signing_key
from aiftrain.checkpoint.signing.signers import Signers
from aiftrain.errors import UserError
from aiftrain.run.policy import PolicySpec
from tests.checkpoint.conftest import flip
from tests.checkpoint.signing.conftest import no_passphrase
from tests.checkpoint.signing.test_checkpoint import official_verdict

Save = Callable[[Catalog, int], Checkpoint]


@pytest.fixture
def other_key(tmp_path: Path) -> PublicKey:
    return new_signing_key(tmp_path / "other.pem")


def named(*keys: PublicKey) -> Signers:
    return Signers.of(PolicySpec(signed_by=tuple(key.pem.decode() for key in keys)))


def refused(signers: Signers, saved: Saved) -> str:
    with pytest.raises(UserError, match=r"^policy\.signed_by: .* does not count: ") as refusal:
        signers.check(saved)
    return str(refusal.value)


def test_one_of_the_keys_is_enough(signed: Checkpoint, public_key: PublicKey, other_key: PublicKey) -> None:
    saved = saved_at_home(signed)
    named(public_key).check(saved)
    named(other_key, public_key).check(saved)
    told = refused(named(other_key), saved)
    assert public_key.fingerprint in told and other_key.fingerprint in told


def test_what_is_not_signed_does_not_count_but_where_nothing_is_demanded(
    catalog: Catalog, save: Save, public_key: PublicKey
) -> None:
    saved = saved_at_home(save(catalog, 1))
    assert "it is not signed" in refused(named(public_key), saved)
    Signers.of(PolicySpec()).check(saved)
    named(public_key).check(saved, catalog.committed)
    assert saved.manifest.digest not in Catalog(catalog.folder).committed, "another process has to see a signature"


def test_a_signature_goes_for_what_was_signed_alone(
    catalog: Catalog, save: Save, signed: Checkpoint, public_key: PublicKey
) -> None:
    save(catalog, 2)
    (catalog.step_folder(2) / SIGNATURE).write_bytes((signed.folder / SIGNATURE).read_bytes())
    assert "manifest.json: SHA-256" in refused(named(public_key), saved_at_home(catalog.find(2)))
    flip(signed.folder / SIGNATURE, 40)
    assert "damaged" in refused(named(public_key), saved_at_home(signed))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    return tmp_path / "model"


def test_a_models_folder_is_signed_and_official_too(model: Path, key_file: Path, public_key: PublicKey) -> None:
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in model.iterdir()}
    with pytest.raises(UserError, match=r"policy\.signed_by: .*/model does not count: it is not signed"):
        named(public_key).check_folder(model, digests)
    sign_model(model, SigningKey.read(key_file, no_passphrase))
    named(public_key).check_folder(model, digests)
    assert official_verdict(model, key_file.with_name("key.pem.pub"))
    with pytest.raises(UserError, match=r"config\.json, more: not what was signed"):
        named(public_key).check_folder(model, digests | {"config.json": "0" * 64, "more": "0" * 64})
    flip(model / SIGNATURE, 40)
    with pytest.raises(UserError, match=r"policy\.signed_by"):
        named(public_key).check_folder(model, digests)
