"""Who may open a seal: recipients (age public keys, for anyone to know) and identities (their secret halves).

The machine that trains and the one that ships have recipients only. An identity is read from a file that no one else
can read, is kept out of messages and representations, and never stands in a command line or a variable.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from aiftrain.checkpoint.private_files import read_private, write_private
from aiftrain.data.files import optional_module
from aiftrain.errors import DamagedError, UserError

IDENTITY_FILE = "AIFTRAIN_IDENTITY_FILE"


def _age() -> ModuleType:
    return optional_module("pyrage", "seal", "sealing checkpoints")


def wrap(secret: bytes, recipients: Sequence[str]) -> bytes:
    """An age file with `secret`. UserError where a recipient is no age public key (X25519), or there is none."""
    age = _age()
    if not recipients:
        raise UserError("nobody could open this seal: storage.seal.recipients is empty")
    keys = []
    for recipient in recipients:
        try:
            keys.append(age.x25519.Recipient.from_str(recipient))
        except age.RecipientError as error:
            raise UserError(f"{recipient!r} is no age public key ({error}); one looks like age1...") from None
    wrapped: bytes = age.encrypt(secret, keys)
    return wrapped


class Identities:
    """What one person can open seals with. Shows its public keys and nothing else."""

    def __init__(self, identities: Sequence[Any], where: str) -> None:
        self._identities = list(identities)
        self._where = where

    def __repr__(self) -> str:
        return f"Identities({', '.join(self.public)})"

    @property
    def public(self) -> list[str]:
        return [str(identity.to_public()) for identity in self._identities]

    @classmethod
    def read(cls, file: Path) -> Identities:
        """A file as `keys new` and age-keygen write it. UserError where others can read it, or it holds no identity."""
        lines = read_private(file).decode("utf-8", errors="replace").split("\n")
        words = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not words:
            raise UserError(f"{file} holds no identity")
        return cls([_parsed(word, file) for word in words], str(file))

    @classmethod
    def given(cls, file: Path | None) -> Identities:
        """Those of `file`, or of the file that AIFTRAIN_IDENTITY_FILE names. UserError where there is neither."""
        named = file or os.environ.get(IDENTITY_FILE)
        if not named:
            raise UserError(f"name the file of your identity with --identity FILE or {IDENTITY_FILE}")
        return cls.read(Path(named))

    def unwrap(self, wrapped: bytes, what: str, recipients: Sequence[str]) -> bytes:
        """The secret in an age file. `recipients` are those that `what` was sealed for, as far as is known.

        UserError where none of these identities is among them, DamagedError where the age file is not what was written.
        """
        age = _age()
        try:
            secret: bytes = age.decrypt(wrapped, self._identities)
        except age.DecryptError as error:
            if str(error) != "No matching keys found":
                raise DamagedError(f"{what} is damaged: its wrapped key cannot be read ({error})") from error
            raise UserError(
                f"{what} was sealed for {', '.join(recipients) or 'others'}; "
                f"none of these is in {self._where}, which holds {', '.join(self.public)}"
            ) from None
        return secret


def _parsed(word: str, file: Path) -> Any:
    age = _age()
    try:
        return age.x25519.Identity.from_str(word)
    except age.IdentityError:
        raise UserError(f"{file} holds {_kind_of(word)}") from None


def _kind_of(word: str) -> str:
    """What a line is that is no identity. It may be a secret with a typing error, and is not repeated."""
    if word.startswith("-----BEGIN"):
        return "a key in PEM, which may sign (`--for signing`) and seals nothing"
    if word.startswith("age1"):
        return "a public key, which is to be sealed for; what opens is the identity, AGE-SECRET-KEY-1..."
    return "a line that is no age identity (AGE-SECRET-KEY-1...)"


def new_identity(file: Path) -> str:
    """Write a new identity that only its owner can read, as age-keygen does; its public key. Overwrites nothing."""
    identity = _age().x25519.Identity.generate()
    public = str(identity.to_public())
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    text = f"# created: {moment}\n# public key: {public}\n{identity}\n"
    write_private(file, text.encode())
    return public
