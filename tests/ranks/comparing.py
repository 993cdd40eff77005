"""Two runs compared: what they logged, and all that their newest checkpoints hold."""

from __future__ import annotations

from math import prod

import numpy as np

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import losses


def states(folder: RunFolder, step: int | None = None) -> dict[str, np.ndarray]:
    """Every state of every parameter in the checkpoint of `step`, or the newest, whole, by "<state>/<parameter>"."""
    entry = Catalog(folder.checkpoints).find(step)
    reader = entry.reader()
    keys = list(reader.look_into(file.name for file in entry.manifest.shards))
    split = {key: key.split("/", 1) for key in keys}
    return {key: reader.read(name, state, 0, prod(reader.shapes[name])) for key, (state, name) in split.items()}


def assert_same(one: RunFolder, other: RunFolder) -> None:
    """To the last bit."""
    for key in ("loss", "grad_norm", "validation", "validation_average", "sources"):
        assert losses(one, key) == losses(other, key)
    ours, theirs = states(one), states(other)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not np.array_equal(ours[name], theirs[name])]
    assert different == []


def assert_close(one: RunFolder, other: RunFolder) -> None:
    """Losses within 1e-5; those of validation, after the last steps, within 1e-4."""
    ours, theirs = losses(one), losses(other)
    assert ours.keys() <= theirs.keys()
    assert max(abs(ours[step] - theirs[step]) / theirs[step] for step in ours) < 1e-5
    for key in ("validation", "validation_average"):
        for step, by_source in losses(one, key).items():
            expected = losses(other, key)[step]
            assert all(abs(loss - expected[source]) < 1e-4 * loss for source, loss in by_source.items())
