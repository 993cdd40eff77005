"""Elastic: what any layout saved, any other goes on with, and nobody converts anything.

Every layout saves the middle of the same run. In CI each is gone on with by the one half the list away, so that all
have both roles; all pairs with `AIFTRAIN_FULL_MATRIX=1`, in about an hour.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import Nursery, losses
from tests.ranks.test_strategies import EXPERTS, farthest, go_on_from

pytestmark = [pytest.mark.ranks, pytest.mark.slow]
NewRun = Callable[..., RunFolder]
Layout = tuple[int, str]
Trained = Callable[[str, Layout], RunFolder]

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
BY_DATA: list[Layout] = [
    (ranks, f"parallelism={name}") for name in ("ddp", "zero1", "zero2", "zero3") for ranks in (1, 2, 3, 4)
]
DENSE: list[Layout] = [
    *BY_DATA,
    *[(ranks, f"parallelism={name}") for name in ("tp", "pp", "sp") for ranks in (2, 4)],
    (4, "parallelism=3d"),
]
MIXTURE: list[Layout] = [
    *[layout for layout in BY_DATA if layout[0] != 3],
    (2, "parallelism=ep"),
    (4, "parallelism=ep"),
    (4, "parallelism=ep parallelism.zero_stage=2"),
    (4, "parallelism=3d"),
]
MODELS = {"dense": (DENSE, ()), "moe": (MIXTURE, (f"model.moe={EXPERTS}",))}


def pairs() -> Iterator[tuple[str, Layout, Layout]]:
    for model, (layouts, _) in MODELS.items():
        count = len(layouts)
        steps = range(count) if os.environ.get("AIFTRAIN_FULL_MATRIX") else [count // 2]
        for number, saver in enumerate(layouts):
            yield from ((model, saver, layouts[(number + step) % count]) for step in steps)


@pytest.fixture(scope="module")
def trained(nursery: Nursery, new_run: NewRun) -> Trained:
    """A run of a layout to its end, trained once."""
    done: dict[tuple[str, Layout], RunFolder] = {}

    def train(model: str, layout: Layout) -> RunFolder:
        if (model, layout) not in done:
            done[model, layout] = folder = new_run(*options(model, layout), ranks=layout[0])
            started = nursery.start(folder, layout[0])
            assert started.wait() == [0] * layout[0], started.log()
        return done[model, layout]

    return train


def options(model: str, layout: Layout) -> list[str]:
    return [*layout[1].split(), *OPTIONS, *MODELS[model][1]]


@pytest.mark.parametrize(("model", "saver", "reader"), list(pairs()), ids=str)
def test_goes_on_as_the_uninterrupted_run(
    nursery: Nursery,
    new_run: NewRun,
    trained: Callable[[str, Layout], RunFolder],
    model: str,
    saver: Layout,
    reader: Layout,
) -> None:
    straight = trained(model, (1, "parallelism=ddp"))
    moved = new_run(*options(model, reader), ranks=reader[0])
    go_on_from(nursery, trained(model, saver), MIDDLE, moved, reader[0])
    expected = {step: loss for step, loss in losses(straight).items() if step > MIDDLE}
    assert farthest(losses(moved), expected) < 1e-5
    sources = losses(straight, "sources")  # tokens read of each source so far: the order of the data
    assert losses(moved, "sources") == {step: sources[step] for step in expected}
