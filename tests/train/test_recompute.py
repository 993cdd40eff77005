"""Recomputation: the same loss and gradients to the last bit, from less memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aiftrain.run.model import ModelSpec
from aiftrain.run.spec import Recompute
from aiftrain.train.model import Decoder, initialise
from tests.train.held import held_after_forward

MODES: tuple[Recompute, ...] = ("selective", "full")
SHAPE = {
    "name": "tiny",
    "vocab_size": 101,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
    "qk_norm": True,
}
NOTHING: dict[str, object] = {}
EXPERTS = {"num_experts": 4, "experts_per_token": 2, "expert_intermediate_size": 48, "shared_intermediate_size": 48}


def built(mode: Recompute, changes: dict[str, object] = NOTHING, *, every: int = 1) -> Decoder:
    spec = ModelSpec.model_validate(SHAPE | changes)
    model = Decoder(spec, sequence_length=32, loss_chunk=16, recompute=mode, recompute_every=every)
    initialise(model, seed=3)
    return model


def step(model: Decoder, *, bf16: bool = False) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of two sequences of two documents each."""
    tokens = torch.randint(0, 101, (2, 32), generator=torch.Generator().manual_seed(0))
    documents = (torch.arange(32) >= 10).long().expand(2, -1)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        objective, _ = model(tokens, tokens.roll(-1, 1), documents)
    objective.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert len(gradients) == len(list(model.parameters()))
    return objective.detach(), gradients


@pytest.mark.parametrize("changes", [{}, {"moe": EXPERTS}], ids=["one MLP", "experts"])
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("mode", MODES)
def test_changes_no_bit_of_loss_and_gradients(mode: Recompute, bf16: bool, changes: dict[str, object]) -> None:
    loss, gradients = step(built(mode, changes), bf16=bf16)
    plain_loss, plain_gradients = step(built("none", changes), bf16=bf16)
    assert torch.equal(loss, plain_loss)
    assert all(torch.equal(ours, plain) for ours, plain in zip(gradients, plain_gradients, strict=True))


@pytest.mark.parametrize("every", [2, 3, 7])
@pytest.mark.parametrize("mode", MODES)
def test_an_interval_changes_no_bit_either(mode: Recompute, every: int) -> None:
    loss, gradients = step(built(mode, every=every))
    plain_loss, plain_gradients = step(built("none"))
    assert torch.equal(loss, plain_loss)
    assert all(torch.equal(ours, plain) for ours, plain in zip(gradients, plain_gradients, strict=True))


def test_the_layers_of_an_interval_are_counted_from_the_first() -> None:
    """Three layers: with an interval of 2 two of them are computed again, with 3 one."""
    held = [held_after_forward(built("full", every=every), sequences=4, bf16=False) for every in (1, 2, 3)]
    none = held_after_forward(built("none"), sequences=4, bf16=False)
    layer = (none - held[0]) / 3
    assert [round((none - some) / layer, 3) for some in held] == [3, 2, 1]


def test_selective_keeps_clearly_less_and_full_next_to_nothing() -> None:
    none, selective, full = (held_after_forward(built(mode), sequences=4, bf16=False) for mode in ("none", *MODES))
    assert full < 0.4 * selective
    assert selective < 0.7 * none


@pytest.mark.parametrize("mode", MODES)
def test_evaluation_does_without(mode: Recompute) -> None:
    tokens = torch.zeros(1, 8, dtype=torch.long)
    with torch.no_grad():
        logits = built(mode)(tokens)
        assert torch.equal(logits, built("none")(tokens))
    assert not logits.requires_grad
