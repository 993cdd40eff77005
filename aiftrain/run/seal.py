"""Whether checkpoints are sealed, and who can open them: `storage.seal`. Public keys only; see docs/sealing.md."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator, model_validator

from aiftrain.run.base import Strict

_KEY = re.compile("age1[02-9ac-hj-np-z]{58}")  # an X25519 public key in Bech32
_SYMBOLS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


class SealSpec(Strict):
    """`where`: what is sealed; archives: what leaves home. `recipients`: age public keys, each of which opens all."""

    where: Literal["none", "archives"] = "none"
    recipients: tuple[str, ...] = ()

    @property
    def warning(self) -> str | None:
        """What may go wrong with these recipients, for people."""
        if self.where == "none" or len(self.recipients) > 1:
            return None
        return "sealed for one key alone: when it is lost, all is. Add a second recipient, and keep its key elsewhere"

    @property
    def for_archives(self) -> tuple[str, ...]:
        """Those who can open what leaves home; empty: it is not sealed."""
        return self.recipients if self.where == "archives" else ()

    @field_validator("recipients", mode="before")
    @classmethod
    def _of_one(cls, recipients: object) -> object:
        return (recipients,) if isinstance(recipients, str) else recipients

    @field_validator("recipients")
    @classmethod
    def _are_keys(cls, recipients: tuple[str, ...]) -> tuple[str, ...]:
        for recipient in recipients:
            check_recipient(recipient)
        if len(set(recipients)) < len(recipients):
            raise ValueError("a recipient is there twice")
        return recipients

    @model_validator(mode="after")
    def _can_be_opened(self) -> SealSpec:
        if self.where != "none" and not self.recipients:
            raise ValueError(
                f"where is {self.where}, and nobody could open it: recipients takes public keys, "
                "which `python -m aiftrain keys new FILE` makes"
            )
        return self


def check_recipient(word: str) -> None:
    """ValueError unless it is an age public key, all its letters right. A secret key is never repeated."""
    if word.upper().startswith("AGE-SECRET-KEY-"):
        raise ValueError("this is a secret key, which belongs into no configuration: make a new one, give its age1...")
    if not _KEY.fullmatch(word):
        raise ValueError(f"{word!r} is no age public key: age1 and 58 letters and digits")
    if _checksum("age", [_SYMBOLS.index(symbol) for symbol in word.removeprefix("age1")]) != 1:
        raise ValueError(f"{word} has a typing error: its check digits are not those of its other letters")


def _checksum(prefix: str, values: list[int]) -> int:
    """1 where it is right. Bech32, https://github.com/bitcoin/bips/blob/master/bip-0173.mediawiki, section Checksum."""
    found = 1
    for value in [*(ord(letter) >> 5 for letter in prefix), 0, *(ord(letter) & 31 for letter in prefix), *values]:
        top = found >> 25
        found = (found & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate(_GENERATORS):
            found ^= generator if top >> place & 1 else 0
    return found
