"""Elastic: what any layout saved, any other goes on with, and nobody converts anything.

Every layout saves the middle of the same run, and is killed then. In CI each is gone on with by the one half the list
away, so that all have both roles; all pairs, also of a mixture's common layouts, with `AIFTRAIN_FULL_MATRIX=1`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest

from aiftrain.run.folder import RunFolder
from tests.conftest import FULL_MATRIX
from tests.ranks.conftest import Nursery, losses
from tests.ranks.test_strategies import EXPERTS, farthest, go_on_from

pytestmark = [pytest.mark.ranks, pytest.mark.slow]
NewRun = Callable[..., RunFolder]
Layout = tuple[int, str]
Trained = Callable[[str], RunFolder]
Saved = Callable[[str, Layout], RunFolder]

ALONE: Layout = (1, "parallelism=ddp")
MIDDLE, STEPS = 6, 16
OPTIONS = (
    f"train.steps={STEPS}",
    "train.evaluate_every=0",
    "train.evaluate_batches=0",
    f"storage.save_every={MIDDLE}",
    "storage.keep_last=9",
    "train.global_batch=12",
    "train.micro_batch=1",
)
BY_DATA = {"ddp": (2, 4), "zero1": (1, 3), "zero2": (2, 4), "zero3": (1, 3)}  # in CI on so many ranks
DENSE: list[Layout] = [
    *[
        (ranks, f"parallelism={name}")
        for name, some in BY_DATA.items()
        for ranks in ((1, 2, 3, 4) if FULL_MATRIX else some)
    ],
    *[(ranks, f"parallelism={name}") for name in ("tp", "pp", "sp") for ranks in (2, 4)],
    (4, "parallelism=3d"),
]
MIXTURE: list[Layout] = [
    *[(ranks, f"parallelism={name}") for name in BY_DATA for ranks in ((1, 2, 4) if FULL_MATRIX else (2,))],
    (2, "parallelism=ep"),
    (4, "parallelism=ep"),
    (4, "parallelism=ep parallelism.zero_stage=2"),
    (4, "parallelism=3d"),
]
MODELS = {"dense": (DENSE, ()), "moe": (MIXTURE, (f"model.moe={EXPERTS}",))}


def pairs() -> Iterator[tuple[str, Layout, Layout]]:
    for model, (layouts, _) in MODELS.items():
        count = len(layouts)
        steps = range(count) if FULL_MATRIX else [count // 2]
        for number, saver in enumerate(layouts):
            yield from ((model, saver, layouts[(number + step) % count]) for step in steps)


@pytest.fixture(scope="module")
def straight(nursery: Nursery, new_run: NewRun) -> Trained:
    """The uninterrupted run of a model, on one rank."""

    @cache
    def train(model: str) -> RunFolder:
        folder = new_run(*options(model, ALONE), ranks=1)
        assert nursery.start(folder, 1).wait() == [0]
        return folder

    return train


@pytest.fixture(scope="module")
def saved(nursery: Nursery, new_run: NewRun) -> Saved:
    """A run of a layout until it has saved its middle."""

    @cache
    def save(model: str, layout: Layout) -> RunFolder:
        folder = new_run(*options(model, layout), ranks=layout[0])
        started = nursery.start(folder, layout[0])
        started.until_saved()
        started.kill()
        return folder

    return save


def options(model: str, layout: Layout) -> list[str]:
    return [*layout[1].split(), *OPTIONS, *MODELS[model][1]]


@pytest.mark.parametrize(("model", "saver", "reader"), list(pairs()), ids=str)
def test_goes_on_as_the_uninterrupted_run(
    nursery: Nursery, new_run: NewRun, straight: Trained, saved: Saved, model: str, saver: Layout, reader: Layout
) -> None:
    whole = straight(model)
    moved = new_run(*options(model, reader), ranks=reader[0])
    go_on_from(nursery, saved(model, saver), MIDDLE, moved, reader[0])
    expected = {step: loss for step, loss in losses(whole).items() if step > MIDDLE}
    assert farthest(losses(moved), expected) < 1e-5
    sources = losses(whole, "sources")  # tokens read of each source so far: the order of the data
    assert losses(moved, "sources") == {step: sources[step] for step in expected}
