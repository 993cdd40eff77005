"""Recomputation on several ranks: under every ZeRO stage the curve is the one of a rank that keeps everything."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aiftrain.run.folder import RunFolder
from tests.conftest import FULL_MATRIX
from tests.ranks.conftest import Nursery, losses

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]

SHORT = ("train.steps=8", "storage.save_every=8", "train.evaluate_every=4")
COMPILED = "train.compile=true"
MORE = [("zero1", "selective"), ("zero3", "full")] if FULL_MATRIX else []


@pytest.fixture(scope="module")
def plain(nursery: Nursery, new_run: NewRun) -> RunFolder:
    """One rank, no ZeRO, everything kept."""
    folder = new_run("parallelism=ddp", *SHORT, ranks=1)
    assert nursery.start(folder, 1).wait() == [0]
    return folder


@pytest.mark.parametrize(
    ("strategy", "mode", "others"),
    [
        ("ddp", "selective", ()),
        ("zero1", "full", ()),
        ("zero2", "selective", ()),
        ("zero3", "full", ()),
        ("zero3", "selective", ()),
        ("pp", "full", ()),
        ("zero3", "full", ("train.recompute_every=2",)),
        pytest.param("zero2", "full", (COMPILED,), marks=pytest.mark.slow),
        pytest.param("zero3", "selective", (COMPILED,), marks=pytest.mark.slow),
        pytest.param("pp", "selective", (COMPILED,), marks=pytest.mark.slow),
        pytest.param("zero1", "selective", (COMPILED, "train.recompute_every=2"), marks=pytest.mark.slow),
        *(pytest.param(*case, (COMPILED,), marks=pytest.mark.slow) for case in MORE),
    ],
)
def test_the_curve_is_that_of_a_rank_that_keeps_everything(
    nursery: Nursery, new_run: NewRun, plain: RunFolder, strategy: str, mode: str, others: tuple[str, ...]
) -> None:
    folder = new_run(f"parallelism={strategy}", f"train.recompute={mode}", "train.micro_batch=1", *SHORT, *others)
    ranks = nursery.start(folder, 2)
    assert ranks.wait() == [0, 0], ranks.log()
    ours, theirs = losses(folder), losses(plain)
    assert set(ours) == set(theirs)
    assert max(abs(ours[step] - theirs[step]) / theirs[step] for step in theirs) < (1e-5 if others else 2e-6)


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_on_one_rank_no_bit_differs(nursery: Nursery, new_run: NewRun, plain: RunFolder, mode: str) -> None:
    folder = new_run("parallelism=ddp", f"train.recompute={mode}", *SHORT, ranks=1)
    assert nursery.start(folder, 1).wait() == [0]
    assert losses(folder) == losses(plain)
