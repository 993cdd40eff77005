"""Every kind of model, its work shared out in every way: losses and gradients of the whole model; what ranks send."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import Nursery
from tests.ranks.parts_of_models import LAYOUTS, variants
from tests.train.references import LAYERS, LENGTH

pytestmark = pytest.mark.ranks

RANKS = 4


@pytest.fixture(scope="module")
def seen(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """By rank."""
    folder = tmp_path_factory.mktemp("parts")
    started = nursery.start(RunFolder(folder), RANKS, program="tests.ranks.parts_of_models")
    assert started.wait() == [0] * RANKS, started.log()
    return [json.loads((folder / f"parts-{rank}.json").read_text(encoding="utf-8")) for rank in range(RANKS)]


def test_losses_and_gradients_are_those_of_the_whole_model(seen: list[dict[str, Any]]) -> None:
    for cases in seen:
        assert len(cases) == sum(len(variants(axes)) for axes in LAYOUTS)
        assert {name: case for name, case in cases.items() if not case["difference"] < 1e-5} == {}


@pytest.mark.parametrize(
    ("case", "ranks", "numbers"),
    [
        ("sequence 4: grouped queries", 4, (4 + 4 + 4 + 4) * 8),  # queries; 2 heads of keys, of values, twice; result
        ("sequence 2 x tensor 2: grouped queries", 2, (2 + 2 + 2 + 2) * 8),  # a tensor's half, of keys 1 head twice
        ("sequence 2 x tensor 2: latent", 2, 2 * (12 + 12 + 6 + 6)),
    ],
)
def test_what_all_to_alls_take_is_counted(seen: list[dict[str, Any]], case: str, ranks: int, numbers: int) -> None:
    """In each layer `numbers` of each token go into attention and come out, and the same way in the backward pass."""
    tokens = 2 * LENGTH // ranks
    assert {cases[case]["bytes"] for cases in seen} == {2 * LAYERS * tokens * numbers * 4}


@pytest.mark.parametrize(("axes", "tensors"), [("expert 4", 1), ("expert 2 x tensor 2", 2)])
def test_what_goes_to_experts_is_counted(seen: list[dict[str, Any]], axes: str, tensors: int) -> None:
    """Every choice of every token there and back, and both ways again for the gradients; before it, how many come."""
    without = axes.replace("expert 4", "sequence 4").replace("expert 2", "sequence 2")
    sent = sum(cases[f"{axes}: experts"]["bytes"] - cases[f"{without}: experts"]["bytes"] for cases in seen)
    layers, choices = LAYERS - 1, 2 * LENGTH * 2
    assert sent == layers * (tensors * choices * 4 * 32 * 4 + RANKS * 4 * 8)
