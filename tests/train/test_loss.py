"""Chunked cross-entropy against torch's own, value and gradients, for any chunk, mask and z-loss."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aiftrain.train.loss import IGNORE, chunked_cross_entropy


def reference(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> Tensor:
    logits = hidden @ weight.T
    plain = torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
    return plain + z_loss * (logits.logsumexp(-1).square() * (targets != IGNORE)).sum()


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 40),
    vocab=st.integers(1, 30),
    chunk=st.integers(1, 50),
    z_loss=st.sampled_from([0.0, 1e-2]),
    ignored=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_equals_the_plain_form(tokens: int, vocab: int, chunk: int, z_loss: float, ignored: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, 6, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(vocab, 6, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.randint(0, vocab, (tokens,), generator=generator)
    targets[torch.rand(tokens, generator=generator) < ignored] = IGNORE
    wanted = reference(hidden, weight, targets, z_loss)
    wanted_gradients = torch.autograd.grad(3 * wanted, (hidden, weight))
    objective, plain = chunked_cross_entropy(hidden, weight, targets, chunk=chunk, z_loss=z_loss)
    gradients = torch.autograd.grad(3 * objective, (hidden, weight))
    # the loss is reduced in fp32 whatever the weights are
    torch.testing.assert_close(objective.double(), wanted, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(plain.double(), reference(hidden, weight, targets, 0.0), rtol=1e-5, atol=1e-4)
    for ours, theirs in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_never_holds_all_logits() -> None:
    tokens, vocab, chunk = 4096, 2048, 64
    hidden = torch.randn(tokens, 8, requires_grad=True)
    weight = torch.randn(vocab, 8, requires_grad=True)
    with torch.profiler.profile(profile_memory=True) as profile:
        objective, _ = chunked_cross_entropy(hidden, weight, torch.zeros(tokens, dtype=torch.long), chunk=chunk)
        objective.backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 4 * tokens * vocab / 8


def test_no_gradient_is_made_where_none_is_wanted() -> None:
    hidden, weight = torch.randn(5, 4), torch.randn(7, 4)
    objective, _ = chunked_cross_entropy(hidden, weight, torch.arange(5), chunk=2)
    assert not objective.requires_grad
