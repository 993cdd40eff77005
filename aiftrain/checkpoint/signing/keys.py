"""Keys to sign and to verify with: elliptic curves of NIST, in PEM files as openssl writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiftrain.checkpoint.private_files import read_private, write_private
from aiftrain.data.files import optional_module, reading
from aiftrain.errors import UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

_HASHES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}  # of each curve, as Sigstore has them

_FORM = "PEM, curve P-256, P-384 or P-521"


def _module(name: str) -> Any:
    return optional_module(f"cryptography.hazmat.primitives.{name}", "sign", "signing checkpoints")


@dataclass(frozen=True)
class PublicKey:
    """What anyone may verify with."""

    key: EllipticCurvePublicKey

    @classmethod
    def read(cls, file: Path) -> PublicKey:
        """UserError where `file` cannot be read, or holds no such key."""
        with reading(file):
            return cls.parse(file.read_bytes(), str(file))

    @classmethod
    def parse(cls, content: bytes, where: str) -> PublicKey:
        """The key in PEM that was found at `where`. UserError, which does not repeat it, where it is none."""
        try:
            return cls(_checked(_module("serialization").load_pem_public_key(content)))
        except ValueError as error:
            raise UserError(f"{where} holds no public key ({_FORM}){_why(content, error)}") from error

    @property
    def pem(self) -> bytes:
        serialization = _module("serialization")
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_bytes(encoding, form)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the PEM text: the hint in a bundle that says which key it was signed with."""
        return hashlib.sha256(self.pem).hexdigest()

    def accepts(self, signature: bytes, message: bytes) -> bool:
        invalid = optional_module("cryptography.exceptions", "sign", "signing checkpoints").InvalidSignature
        try:
            self.key.verify(signature, message, _algorithm(self.key))
        except invalid:
            return False
        return True


class SigningKey:
    """The secret half. Shows the fingerprint of its public half and nothing else."""

    def __init__(self, key: EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    def __repr__(self) -> str:
        return f"SigningKey({self.public.fingerprint})"

    @classmethod
    def read(cls, file: Path, passphrase: Callable[[], bytes]) -> SigningKey:
        """The key in `file`; `passphrase` is asked where it is locked.

        UserError where others can read the file, or it holds no such key, or the passphrase is another one.
        """
        content = read_private(file)
        try:
            return cls(_checked(_unlocked(content, passphrase)))
        except ValueError as error:  # its text tells what is wrong with the form, never what was in it
            raise UserError(f"{file} holds no private key ({_FORM}){_why(content, error)}") from None

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message, _algorithm(self._key))


def _why(content: bytes, error: ValueError) -> str:
    """What cryptography says of a key, and nothing where it only finds none: then it speaks of its own web page."""
    return f": {error}" if b"-----BEGIN" in content else ""


def _unlocked(content: bytes, passphrase: Callable[[], bytes]) -> Any:
    load = _module("serialization").load_pem_private_key
    try:
        return load(content, None)
    except TypeError:  # it is locked
        return _opened(load, content, passphrase())


def _opened(load: Callable[..., Any], content: bytes, passphrase: bytes) -> Any:
    try:
        return load(content, passphrase)
    except ValueError:
        raise UserError("the key does not open with this passphrase") from None


def _checked(key: Any) -> Any:
    curve = getattr(key, "curve", None)
    if curve is None or curve.name not in _HASHES:
        raise ValueError(f"found {curve.name if curve else type(key).__name__}")
    return key


def _algorithm(key: Any) -> Any:
    return _module("asymmetric.ec").ECDSA(getattr(_module("hashes"), _HASHES[key.curve.name])())


def new_signing_key(file: Path, passphrase: bytes | None = None) -> PublicKey:
    """Write a new P-256 key into `file`, locked with `passphrase` if there is one; its public half into `file`.pub."""
    serialization, curves = _module("serialization"), _module("asymmetric.ec")
    key = curves.generate_private_key(curves.SECP256R1())
    lock = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    write_private(file, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock))
    public = PublicKey(key.public_key())
    public_file = file.with_name(f"{file.name}.pub")
    write_private(public_file, public.pem)
    public_file.chmod(0o644)
    return public
