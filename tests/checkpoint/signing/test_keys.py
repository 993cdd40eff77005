"""Signing keys: private, locked with a passphrase where wanted, of the curves that the format knows."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from aiftrain.checkpoint.signing.keys import PublicKey, SigningKey, new_signing_key
from aiftrain.errors import UserError


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def test_a_new_key_is_its_owners_alone_and_its_public_half_everyones(tmp_path: Path) -> None:
    public = new_signing_key(tmp_path / "key.pem")
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "key.pem.pub").stat().st_mode) == 0o644
    assert PublicKey.read(tmp_path / "key.pem.pub").pem == public.pem
    with pytest.raises(UserError, match="never overwritten"):
        new_signing_key(tmp_path / "key.pem")


def test_a_locked_key_opens_with_its_passphrase_alone(tmp_path: Path) -> None:
    public = new_signing_key(tmp_path / "key.pem", b"correct horse")
    key = SigningKey.read(tmp_path / "key.pem", lambda: b"correct horse")
    assert public.accepts(key.sign(b"message"), b"message")
    assert not public.accepts(key.sign(b"message"), b"massage")
    with pytest.raises(UserError, match="does not open with this passphrase"):
        SigningKey.read(tmp_path / "key.pem", lambda: b"wrong")


@pytest.mark.parametrize("curve", ["prime256v1", "secp384r1", "secp521r1"])
def test_keys_of_openssl(tmp_path: Path, curve: str) -> None:
    openssl("ecparam", "-name", curve, "-genkey", "-noout", "-out", tmp_path / "key.pem")
    openssl("ec", "-in", tmp_path / "key.pem", "-pubout", "-out", tmp_path / "key.pub")
    (tmp_path / "key.pem").chmod(0o600)
    key = SigningKey.read(tmp_path / "key.pem", lambda: b"")
    assert PublicKey.read(tmp_path / "key.pub").accepts(key.sign(b"message"), b"message")
    assert repr(key) == f"SigningKey({key.public.fingerprint})"


def test_other_keys_and_files_are_refused(tmp_path: Path) -> None:
    openssl("ecparam", "-name", "secp256k1", "-genkey", "-noout", "-out", tmp_path / "bitcoin.pem")
    openssl("genrsa", "-out", tmp_path / "rsa.pem", "2048")
    (tmp_path / "text.pem").write_text("no key")
    for name in ("bitcoin", "rsa", "text"):
        (tmp_path / f"{name}.pem").chmod(0o600)
        with pytest.raises(UserError, match="holds no private key"):
            SigningKey.read(tmp_path / f"{name}.pem", lambda: b"")
        with pytest.raises(UserError, match="holds no public key"):
            PublicKey.read(tmp_path / f"{name}.pem")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    new_signing_key(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        SigningKey.read(tmp_path / "key.pem", lambda: b"")
