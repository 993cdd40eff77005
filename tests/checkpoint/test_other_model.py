"""Weights of another model are refused, whatever fits into whatever."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiftrain.checkpoint.catalog import Checkpoint
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.errors import UserError
from tests.conftest import small_spec


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    spec = small_spec()
    other = spec.identity() | {"model": spec.model.model_copy(update={"hidden_size": 64}).model_dump(mode="json")}
    manifest = Manifest(
        step=2, optimizer_step=2, tokens=256, sources={"en": 256}, time=1.75e9, attempt=1, world_size=1,
        run_digest=spec.digest, identity=other, versions={}, shapes={}, files=[],
    )  # fmt: skip
    with pytest.raises(UserError, match="another model"):
        Checkpoint(tmp_path, manifest).check_model(spec)
