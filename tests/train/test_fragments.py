"""Optimizer state that a resumed run starts with."""

from __future__ import annotations

import torch

from aiftrain.train.fragments import STATES, _filled


def test_all_of_a_state_lies_where_its_weights_lie() -> None:
    """AdamW fused on a GPU refuses a step count in the memory of the CPU; meta stands for any other device."""
    weights = torch.zeros(3, device="meta")
    state = _filled({weights: {}}, weights)
    assert {name: value.device.type for name, value in state.items()} == dict.fromkeys(("step", *STATES), "meta")
