"""Sealed checkpoints: ciphertext for stores and operators, readable only with an identity. See docs/sealing.md."""
