"""A run that begins from an exported one: its weights, losses and average, in any layout; a damaged file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.model_card import model_card
from aiftrain.run.folder import RunFolder
from tests.checkpoint.run_to_export import export_run
from tests.ranks.comparing import states
from tests.ranks.conftest import Nursery, events, losses

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]

STANDING = ["optimizer.lr=1e-30", "optimizer.ema_decay=0.5", "train.steps=1", "optimizer.warmup_steps=0"]


@pytest.fixture(scope="module")
def trained(nursery: Nursery, new_run: NewRun) -> RunFolder:
    folder = new_run("train.steps=4", ranks=1)
    assert nursery.start(folder, 1).wait() == [0]
    return folder


@pytest.fixture(scope="module")
def published(trained: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_run(trained, tmp_path_factory.mktemp("exported") / "model", shard_gb=1e-4).folder


def from_it(published: Path) -> list[str]:
    tokenizer = f"data.tokenizer={{kind: file, path: {published}/tokenizer.json}}"
    return ["model=imported", f"init_from={published}", tokenizer]


@pytest.mark.parametrize("strategy", ["ddp", "zero3", "tp"])
def test_the_first_weights_are_those_of_the_folder(
    nursery: Nursery, new_run: NewRun, trained: RunFolder, published: Path, strategy: str
) -> None:
    folder = new_run(f"parallelism={strategy}", *from_it(published), *STANDING)
    ranks = nursery.start(folder, 2)
    assert ranks.wait() == [0, 0], ranks.log()
    (begun,) = events(folder, "init_from")
    assert begun["path"] == str(published)
    assert "trained from the weights of model with" in model_card(
        folder.read_spec(), Catalog(folder.checkpoints).find().manifest
    )
    ours, theirs = states(folder), states(trained)
    for key in (key for key in theirs if key.startswith("weight/")):
        assert np.array_equal(ours[key], theirs[key])
        assert np.array_equal(ours[key.replace("weight/", "ema/")], theirs[key])
    expected = losses(trained, "validation")[4]
    assert losses(folder, "validation")[1] == pytest.approx(expected, rel=1e-5)


def test_a_larger_vocabulary_keeps_the_old_rows(
    nursery: Nursery, new_run: NewRun, trained: RunFolder, published: Path
) -> None:
    folder = new_run("parallelism=zero3", *from_it(published), *STANDING, "model.vocab_size=408")
    ranks = nursery.start(folder, 2)
    assert ranks.wait() == [0, 0], ranks.log()
    old, new = (states(run)["weight/embed.weight"].reshape(-1, 48) for run in (trained, folder))
    assert (len(old), len(new)) == (400, 408)
    assert np.array_equal(new[:400], old)
    assert np.abs(new[400:] - old.mean(0)).max() < 0.1 * old.std()


def test_a_file_that_changed_since_the_plan_is_named(nursery: Nursery, new_run: NewRun, published: Path) -> None:
    folder = new_run(*from_it(published), *STANDING)
    file = sorted(published.glob("*.safetensors"))[-1]
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        ranks = nursery.start(folder, 2)
        assert ranks.wait() == [1, 1], ranks.log()
    finally:
        file.write_bytes(content)
    assert f"this run was planned with: {file.name}: SHA-256" in ranks.message()
