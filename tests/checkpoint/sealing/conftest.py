"""Identities to seal for and open with."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiftrain.checkpoint.sealing.keys import Identities, new_identity


@pytest.fixture
def identity_file(tmp_path: Path) -> Path:
    file = tmp_path / "identity.txt"
    new_identity(file)
    return file


@pytest.fixture
def identities(identity_file: Path) -> Identities:
    return Identities.read(identity_file)


@pytest.fixture
def stranger(tmp_path: Path) -> Identities:
    """Somebody for whom nothing was sealed."""
    new_identity(tmp_path / "stranger.txt")
    return Identities.read(tmp_path / "stranger.txt")


@pytest.fixture
def successor(tmp_path: Path) -> Identities:
    """What takes the place of another one."""
    new_identity(tmp_path / "successor.txt")
    return Identities.read(tmp_path / "successor.txt")
