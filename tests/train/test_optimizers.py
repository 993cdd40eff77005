"""The optimizers against their papers' formulas in plain loops, and what else each keeps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aiftrain.run.optimizer import AdemamixSpec
from aiftrain.train.optimizers import ademamix
from aiftrain.train.optimizers.ademamix import AdEMAMix
from aiftrain.train.optimizers.base import AdamW, GatedOptimizer
from aiftrain.train.optimizers.gate import Gate

SPEC = AdemamixSpec(alpha=5.0, beta3=0.99, alpha_steps=7, beta3_steps=9)
STATES = ("exp_avg", "exp_avg_sq", "exp_avg_slow", "ema")


def ready(optimizer: GatedOptimizer) -> GatedOptimizer:
    """With a gate, and its states made, as the engine does it."""
    optimizer.gate = Gate()
    for group in optimizer.param_groups:
        for weights in group["params"]:
            optimizer.make_state(weights, group)
    return optimizer


def gradient(step: int, size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(step), dtype=torch.float64).float()


def of_the_paper(weights: Tensor, steps: int, lr: float, decay: float) -> Tensor:
    """AdEMAMix as algorithm 1 and equations of arXiv 2409.03137 have it, in fp64, element by element."""
    out = weights.double().tolist()
    moments = [[0.0, 0.0, 0.0] for _ in out]
    for t in range(1, steps + 1):
        grads = gradient(t, len(out)).double().tolist()
        alpha = min(t * 5.0 / 7, 5.0)
        low, high = math.log(0.9), math.log(0.99)
        beta3 = min(math.exp(low * high / ((1 - t / 9) * high + t / 9 * low)), 0.99)
        for i, g in enumerate(grads):
            fast, slow, square = moments[i]
            fast, slow, square = 0.9 * fast + 0.1 * g, beta3 * slow + (1 - beta3) * g, 0.999 * square + 0.001 * g * g
            moments[i] = [fast, slow, square]
            mixed = fast / (1 - 0.9**t) + alpha * slow
            out[i] -= lr * (mixed / (math.sqrt(square / (1 - 0.999**t)) + 1e-8) + decay * out[i])
    return torch.tensor(out, dtype=torch.float64)


def test_ademamix_is_that_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ademamix._AT_ONCE, "cpu", 7)  # elements at one time, so that 30 are several
    weights = torch.nn.Parameter(gradient(0, 30))
    expected = of_the_paper(weights.detach(), 20, lr=1e-2, decay=0.1)
    group = {"params": [weights], "weight_decay": 0.1, "states": STATES}
    optimizer = ready(AdEMAMix([group], SPEC, lr=1e-2, betas=(0.9, 0.999), eps=1e-8))
    for step in range(1, 21):
        weights.grad = gradient(step, 30)
        optimizer.step()
    torch.testing.assert_close(weights.detach().double(), expected, rtol=1e-5, atol=1e-6)


@given(st.integers(1, 200_000), st.integers(0, 100_000), st.floats(0.5, 0.95), st.floats(0.96, 0.99999))
def test_ademamix_schedules_rise_to_their_end_and_stay(step: int, steps: int, beta1: float, end: float) -> None:
    spec = AdemamixSpec(alpha=8.0, beta3=end, alpha_steps=steps, beta3_steps=steps)
    alpha, beta3 = ademamix.alpha(spec, step), ademamix.beta3(spec, beta1, step)
    assert 0 < alpha <= 8.0 and beta1 < beta3 <= end
    assert alpha <= ademamix.alpha(spec, step + 1) and beta3 <= ademamix.beta3(spec, beta1, step + 1)
    assert (alpha, beta3) == (8.0, end) or step < steps


def test_the_average_of_weights_follows_them() -> None:
    weights = torch.nn.Parameter(gradient(0, 30))
    optimizer = ready(AdamW([{"params": [weights], "states": STATES}], lr=1e-2, fused=True))
    optimizer.ema_decay = 0.75
    expected = weights.detach().double()
    for step in range(1, 6):
        weights.grad = gradient(step, 30)
        optimizer.gate.next_step()
        optimizer.step()
        expected = 0.75 * expected + 0.25 * weights.detach().double()
    torch.testing.assert_close(optimizer.state[weights]["ema"].double(), expected, rtol=1e-6, atol=1e-7)


def test_a_closed_gate_stops_the_average_too() -> None:
    weights = torch.nn.Parameter(gradient(0, 30))
    optimizer = ready(AdamW([{"params": [weights], "states": STATES}], lr=1e-2, fused=True))
    optimizer.ema_decay = 0.75
    weights.grad = gradient(1, 30)
    optimizer.step()
    before = {name: value.clone() for name, value in optimizer.state[weights].items()}
    optimizer.gate.next_step()
    optimizer.gate.ask = lambda: False
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in optimizer.state[weights].items())
    assert not optimizer.gate.let_through


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_all_of_a_state_lies_where_its_weights_lie(device: str) -> None:
    """AdamW fused on a GPU refuses a step count in the memory of the CPU; meta stands for any other device."""
    weights = torch.zeros(3, device=device)
    optimizer = AdamW([weights], fused=True)
    optimizer.make_state(weights, {"states": STATES})
    devices = {name: value.device.type for name, value in optimizer.state[weights].items()}
    assert devices == dict.fromkeys((*STATES, "step"), device)
