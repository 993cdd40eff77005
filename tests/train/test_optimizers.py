"""The optimizers against their papers' formulas in plain loops, and what else each keeps."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aiftrain.run.model import ModelSpec
from aiftrain.run.optimizer import AdemamixSpec, MuonSpec
from aiftrain.train.optimizers import ademamix, exchange, muon
from aiftrain.train.optimizers.ademamix import AdEMAMix
from aiftrain.train.optimizers.base import AdamW, GatedOptimizer
from aiftrain.train.optimizers.exchange import Piece
from aiftrain.train.optimizers.gate import Gate
from aiftrain.train.optimizers.matrices import Matrix, matrices_of
from aiftrain.train.optimizers.muon import Muon
from aiftrain.train.optimizers.orthogonal import orthogonalised

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


def muon_of(weights: torch.nn.Parameter, matrices: list[Matrix]) -> Muon:
    group = {"params": [weights], "weight_decay": 0.1, "states": ("momentum",)}
    optimizer = Muon([group], MuonSpec(), lr=1e-2, fused=True)
    ready(optimizer)
    optimizer.lay_out(weights, [Piece(matrix, 0, len(matrix), matrix.start) for matrix in matrices], None)
    return optimizer


def stepped(optimizer: torch.optim.Optimizer, weights: torch.nn.Parameter, steps: int = 20) -> Tensor:
    """The weights after some steps, with the same gradients for every optimizer."""
    for step in range(1, steps + 1):
        weights.grad = gradient(step, weights.numel()).view_as(weights)
        optimizer.step()
    return weights.detach()


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (24, 24)])
def test_muon_is_torchs(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]) -> None:
    """torch's works in bf16 and scales in fp32, ours scales in what it works in: one rounding of each update."""
    monkeypatch.setattr(muon, "working_type", lambda _: torch.bfloat16)
    first = gradient(0, 24 * 40)[: shape[0] * shape[1]].view(shape)
    ours, theirs = (torch.nn.Parameter(first.clone()) for _ in range(2))
    reference = torch.optim.Muon([theirs], lr=1e-2, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    expected = stepped(reference, theirs)
    found = stepped(muon_of(ours, [Matrix("w", 0, *shape)]), ours)
    assert (expected - first).abs().max() > 0.02
    torch.testing.assert_close(found, expected, rtol=0, atol=20 * 1e-2 * 0.2 * 2**-8)


def test_muon_is_that_of_the_paper_matrix_by_matrix() -> None:
    """Algorithm 1 of arXiv 2502.16982 in fp64, on two matrices that are stored as one."""
    weights = torch.nn.Parameter(gradient(0, 36 * 10).view(36, 10))
    expected = [part.double() for part in weights.detach().split([30, 6])]
    momenta = [torch.zeros_like(part) for part in expected]
    for step in range(1, 21):
        for i, grad in enumerate(gradient(step, 36 * 10).view(36, 10).double().split([30, 6])):
            momenta[i] = 0.95 * momenta[i] + grad
            x = grad + 0.95 * momenta[i]
            x /= x.norm()
            for _ in range(5):
                x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
            expected[i] = expected[i] - 1e-2 * (0.2 * math.sqrt(max(x.shape)) * x + 0.1 * expected[i])
    found = stepped(muon_of(weights, [Matrix("w", 0, 30, 10), Matrix("w", 300, 6, 10)]), weights)
    torch.testing.assert_close(found.double(), torch.cat(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(64, 96), (16, 128), (128, 16)])
def test_orthogonalised_is_nearly_orthogonal(shape: tuple[int, int]) -> None:
    values = torch.linalg.svdvals(orthogonalised(gradient(0, shape[0] * shape[1]).view(shape), 5))
    assert values.min() > 0.6 and values.max() < 1.3


def test_projections_are_matrices_of_their_own() -> None:
    moe = {"num_experts": 3, "experts_per_token": 2, "expert_intermediate_size": 6}
    shape = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 10, "num_layers": 1, "num_heads": 4}
    model = ModelSpec.model_validate({"name": "tiny", "num_kv_heads": 2, "moe": moe} | shape)

    def sizes(name: str, *shape: int) -> list[tuple[int, int]]:
        found = list(matrices_of(model, name, shape))
        ends = [matrix.start + len(matrix) for matrix in found]
        assert [matrix.start for matrix in found] == [0, *ends[:-1]] and ends[-1] == math.prod(shape)
        return [(matrix.rows, matrix.columns) for matrix in found]

    assert sizes("layers.0.attention.qkv.weight", 16, 8) == [(8, 8), (4, 8), (4, 8)]
    assert sizes("layers.0.attention.output.weight", 8, 8) == [(8, 8)]
    assert sizes("layers.0.mlp.gate_up.weight", 20, 8) == [(10, 8), (10, 8)]
    assert sizes("layers.0.mlp.up", 3, 12, 8) == [(6, 8)] * 6
    assert sizes("layers.0.mlp.down", 3, 6, 8) == [(6, 8)] * 3
    assert sizes("layers.0.mlp.router", 3, 8) == [(3, 8)]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=9), st.integers(2, 5), st.data())
def test_what_one_rank_sends_another_awaits_and_each_matrix_is_worked_on_once(
    shapes: list[tuple[int, int]], ranks: int, data: st.DataObject
) -> None:
    matrices = [Matrix(f"w{number}", 0, *shape) for number, shape in enumerate(shapes)]
    everyone: list[list[Piece]] = [[] for _ in range(ranks)]
    for matrix in matrices:
        cuts = [0, *sorted(data.draw(st.integers(0, len(matrix))) for _ in range(ranks - 1)), len(matrix)]
        for rank, (start, stop) in enumerate(itertools.pairwise(cuts)):
            if stop > start:
                everyone[rank].append(Piece(matrix, start, stop - start, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "_AT_ONCE", 20 // ranks)
        seen = [list(exchange._rounds(everyone, rank)) for rank in range(ranks)]
    worked: list[Matrix] = []
    for parts in zip(*seen, strict=True):
        for here, part in enumerate(parts):
            assert part.sent == [other.held[here] for other in parts]
            held = [piece for pieces in part.held for piece in pieces]
            whole = {piece.matrix for piece in held}
            assert sum(piece.count for piece in held) == sum(map(len, whole))
            worked += whole
    assert sorted(worked) == sorted(matrices)
