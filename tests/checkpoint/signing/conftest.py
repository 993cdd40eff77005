"""A key, and a checkpoint that was signed with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.signing.checkpoint import sign
from aiftrain.checkpoint.signing.keys import PublicKey, SigningKey, new_signing_key

Save = Callable[[Catalog, int], Checkpoint]


def no_passphrase() -> bytes:
    raise AssertionError("the key is not locked")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    new_signing_key(tmp_path / "key.pem")
    return tmp_path / "key.pem"


@pytest.fixture
def public_key(key_file: Path) -> PublicKey:
    return PublicKey.read(key_file.with_name("key.pem.pub"))


@pytest.fixture
def signed(catalog: Catalog, save: Save, key_file: Path) -> Checkpoint:
    checkpoint = save(catalog, 1)
    sign(checkpoint, SigningKey.read(key_file, no_passphrase))
    return checkpoint
