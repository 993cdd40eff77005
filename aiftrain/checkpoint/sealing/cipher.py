"""The one place that AES-GCM comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiftrain.data.files import optional_module

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def aes_gcm(secret: bytes) -> AESGCM:
    """The cipher under a key. UserError where the package for it is not installed."""
    module = optional_module("cryptography.hazmat.primitives.ciphers.aead", "seal", "sealing checkpoints")
    cipher: AESGCM = module.AESGCM(secret)
    return cipher
