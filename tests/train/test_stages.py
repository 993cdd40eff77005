"""Stages of a pipeline in one process: put together they are the whole model, and each holds no more than its part."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from aiftrain.run.model import ModelSpec
from aiftrain.train.model import Decoder, full_shapes, initialise
from aiftrain.train.pipeline.handing import Answer, handed_on

MOE = {"num_experts": 4, "experts_per_token": 2, "expert_intermediate_size": 16, "every": 2, "router_z_loss": 0.01}


def shape(**changes: Any) -> ModelSpec:
    same = {"name": "m", "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_layers": 5}
    return ModelSpec.model_validate(same | {"num_heads": 2, "num_kv_heads": 2} | changes)


def built(model: ModelSpec, layers: range | None = None) -> Decoder:
    decoder = Decoder(model, sequence_length=8, layers=layers)
    initialise(decoder, seed=3)
    return decoder


def batch() -> tuple[Tensor, Tensor, Tensor]:
    tokens = torch.randint(0, 50, (2, 8), generator=torch.Generator().manual_seed(1))
    targets = tokens.roll(-1, 1)
    targets[:, -1] = -100
    return tokens, targets, torch.tensor([[0] * 5 + [1] * 3, [0] * 8])


def in_stages(stages: list[Decoder]) -> tuple[Tensor, Tensor]:
    """Losses of all stages together; gradients come back as a pipeline sends them."""
    handed, left = None, []
    for stage in stages:
        first, second = stage(*batch(), handed)
        if stage.is_last:
            objective, plain = first, second
            break
        answer = Answer()
        share = handed_on(first, answer) + (0 if second is None else second)
        handed = first.detach().requires_grad_()
        left.append((share, answer, handed))
    total = objective.detach().clone()
    objective.backward()
    for share, answer, handed in reversed(left):
        answer.gradient = handed.grad
        total += share.detach()
        share.backward()
    return total, plain


@pytest.mark.parametrize("bounds", [(0, 2, 5), (0, 1, 3, 5), (0, 1, 2, 3, 4, 5)])
@pytest.mark.parametrize("changes", [{}, {"moe": MOE}, {"positions": "learned", "max_positions": 8}])
def test_stages_are_the_whole_model(bounds: tuple[int, ...], changes: dict[str, Any]) -> None:
    model = shape(**changes)
    whole, stages = built(model), [built(model, range(*ends)) for ends in pairwise(bounds)]
    objective, plain = whole(*batch())
    objective.backward()
    ours = in_stages(stages)
    torch.testing.assert_close(ours[0], objective.detach())
    torch.testing.assert_close(ours[1], plain)
    parts = {name: parameter for stage in stages for name, parameter in stage.named_parameters()}
    assert sum(len(list(stage.parameters())) for stage in stages) == len(parts), "no parameter is on two stages"
    assert parts.keys() == dict(whole.named_parameters()).keys()
    for name, parameter in whole.named_parameters():
        assert torch.equal(parts[name], parameter), f"{name} is drawn as in the whole model"
        torch.testing.assert_close(parts[name].grad, parameter.grad)


def test_a_tied_table_is_the_first_stages_own_and_a_buffer_on_the_last() -> None:
    model = shape(tie_embeddings=True)
    first, last = built(model, range(0, 2)), built(model, range(2, 5))
    assert "embed.weight" in dict(first.named_parameters())
    assert "head.weight" not in dict(last.named_parameters()) and "head.weight" not in last.state_dict()
    assert dict(last.named_buffers())["head.weight"].shape == first.embed.weight.shape
    assert [*dict(full_shapes(first)), *dict(full_shapes(last))] == [*dict(full_shapes(built(model)))]
