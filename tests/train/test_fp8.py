"""Products in 8 bits: their rounding, emulated on a CPU, in both orders of storing weights; refusals."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from aiftrain.errors import UserError
from aiftrain.run.spec import Fp8
from aiftrain.train.fp8 import fp8_product, use_fp8
from aiftrain.train.mesh import ALONE
from aiftrain.train.model import Decoder, initialise
from aiftrain.train.tensor_parallel import JoinLinear, SplitLinear
from tests.train.references import spec

RECIPES: tuple[Fp8, ...] = ("tensorwise", "rowwise", "rowwise_with_gw_hp")
E4M3 = 2.0**-4  # half of a unit in the last place: the most that a number moves, as a share of itself


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("bias", [False, True])
def test_either_way_of_storing_a_weight_gives_the_same(recipe: Fp8, bias: bool) -> None:
    """A matrix and its transpose hold the same numbers, so no bit may differ."""
    split, join = SplitLinear(32, (48,), ALONE.tensor, bias=bias), JoinLinear(32, 48, ALONE.tensor, bias=bias)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in split.parameters():
            parameter.normal_()
        join.weight.copy_(split.weight.T)
        if split.bias is not None and join.bias is not None:
            join.bias.copy_(split.bias)
    x, gradient = torch.randn(2, 16, 32), torch.randn(2, 16, 48)
    results = []
    for module in (split, join):
        module.product = fp8_product(recipe, emulate=True)
        inputs = x.clone().requires_grad_()
        out = module(inputs)
        out.backward(gradient)
        assert module.weight.grad is not None
        weight = module.weight.grad if module is split else module.weight.grad.T
        results.append((out, inputs.grad, weight))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_product_is_as_near_as_eight_bits_allow_and_no_nearer(recipe: Fp8) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(64, 32), torch.randn(48, 32)
    exact, ours = x @ weight.T, fp8_product(recipe, emulate=True)(x, weight, None)
    off = ((ours - exact).norm() / exact.norm()).item()
    assert E4M3 / 4 < off < E4M3


def trained(recipe: Fp8 | None, *, autocast: bool = False) -> tuple[Tensor, list[Tensor]]:
    model = Decoder(spec(mlp_bias=True, head_dim=16, intermediate_size=64), sequence_length=24)
    initialise(model, seed=3)
    if recipe:
        use_fp8(model, recipe, emulate=True)
    tokens = torch.randint(0, 101, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = model(tokens, tokens.roll(-1, 1))[0]
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_model_learns_nearly_the_same(recipe: Fp8, autocast: bool) -> None:
    (loss, gradients), (plain_loss, plain) = trained(recipe, autocast=autocast), trained(None)
    torch.testing.assert_close(loss, plain_loss, rtol=0.01, atol=0)
    assert len(gradients) == len(plain)
    for ours, theirs in zip(gradients, plain, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.97


def test_every_product_of_a_layer_but_the_experts_is_covered() -> None:
    moe = {"num_experts": 4, "experts_per_token": 2, "expert_intermediate_size": 16, "shared_intermediate_size": 16}
    model = Decoder(spec(moe=moe), sequence_length=24)
    use_fp8(model, "tensorwise", emulate=True)
    covered = {name.split(".", 2)[2] for name, module in model.named_modules() if _is_covered(module)}
    assert covered == {"attention.qkv", "attention.output", "mlp.shared.gate_up", "mlp.shared.down"}


def _is_covered(module: torch.nn.Module) -> bool:
    return getattr(module, "product", torch.nn.functional.linear) is not torch.nn.functional.linear


def test_without_torchao_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(UserError, match=r"needs torchao: python -m pip install .*aiftrain\[fp8\]"):
        fp8_product("tensorwise")
