"""Signed checkpoints: who vouches for what is in one, in model-signing's format. See docs/signing.md."""
