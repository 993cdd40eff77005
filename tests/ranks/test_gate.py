"""A step that is stopped at the gate changes nothing, under every ZeRO stage, though DeepSpeed goes through with it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import Nursery

pytestmark = pytest.mark.ranks
BF16_WEIGHTS = {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}  # deepspeed.json for a GPU


@pytest.mark.parametrize(
    ("strategy", "bf16"), [("ddp", False), ("zero1", False), ("zero2", False), ("zero3", False), ("zero1", True)]
)
def test_a_closed_gate_stops_the_update_and_is_asked_once_a_step(
    nursery: Nursery, new_run: Callable[..., RunFolder], strategy: str, bf16: bool
) -> None:
    folder = new_run(f"parallelism={strategy}")
    if bf16:
        config = json.loads(folder.deepspeed_json.read_text(encoding="utf-8"))
        folder.write_json(folder.deepspeed_json, config | BF16_WEIGHTS)
    ranks = nursery.start(folder, 2, program="tests.ranks.gated_steps")
    assert ranks.wait() == [0, 0], ranks.log()
    for rank in range(2):
        steps = json.loads((folder.path / f"gated-{rank}.json").read_text(encoding="utf-8"))
        assert [step["asked"] for step in steps] == [1, 2, 3, 4]
        assert all(step["norms_agree"] for step in steps)
        assert [step["let_through"] for step in steps] == [False, True, False, True]
        assert [step["changed"] for step in steps] == [False, True, False, True]
        assert [step["optimizer_steps"] for step in steps] == [0, 1, 1, 2]
