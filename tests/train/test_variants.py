"""Every shape against transformers' model of it, with the same weights; routing losses; what training them needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from aiftrain.run.model import ModelSpec
from aiftrain.train.masks import alibi_slopes
from aiftrain.train.model import Decoder, initialise, kind_of
from aiftrain.train.routing import routing_loss
from tests.train.references import LENGTH, State, config, decoder, from_bloom, from_gpt2, from_llama, shaken, spec

GPT = {"norm": "layer", "norm_bias": True, "qkv_bias": True, "output_bias": True, "mlp": "gelu", "mlp_bias": True}
BLOOM = GPT | {"positions": "alibi", "embedding_norm": True, "tie_embeddings": True, "intermediate_size": 128}
MOE = {"num_experts": 4, "experts_per_token": 2, "expert_intermediate_size": 16}
LATENT = {"query_rank": 24, "kv_rank": 16, "nope_dim": 8, "rope_dim": 4, "value_dim": 6}
SHARED = {"n_layer": 3, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}

Variant = tuple[ModelSpec, str, dict[str, Any], Callable[[State, ModelSpec], State]]
VARIANTS: dict[str, Variant] = {
    "llama": (spec(), "Llama", config(), from_llama),
    "tied": (spec(tie_embeddings=True), "Llama", config(tie_word_embeddings=True), from_llama),
    "qkv bias": (spec(qkv_bias=True), "Qwen2", config(), from_llama),
    "window": (spec(sliding_window=5), "Mistral", config(sliding_window=5), from_llama),
    "no positions in every 3rd layer": (
        spec(nope_every=3),
        "SmolLM3",
        config(no_rope_layer_interval=3, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
        from_llama,
    ),
    "bloom": (
        spec(**BLOOM, num_kv_heads=4),
        "Bloom",
        {"vocab_size": 101, "hidden_size": 32, **SHARED},
        from_bloom,
    ),
    "bloom with six heads": (
        spec(**BLOOM | {"hidden_size": 48, "intermediate_size": 192}, num_heads=6, num_kv_heads=6),
        "Bloom",
        {"vocab_size": 101, "hidden_size": 48, **SHARED, "n_head": 6},
        from_bloom,
    ),
    "gpt-2": (
        spec(**GPT, positions="learned", max_positions=32, tie_embeddings=True, num_kv_heads=4),
        "GPT2",
        {"vocab_size": 101, "n_embd": 32, "n_inner": 48, "n_positions": 32, **SHARED},
        from_gpt2,
    ),
    "apertus": (
        spec(qk_norm=True, mlp="xielu"),
        "Apertus",
        config(rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
        from_llama,
    ),
    "mixtral": (
        spec(moe=MOE, rope_theta=1e6),
        "Mixtral",
        config(intermediate_size=16, num_local_experts=4, num_experts_per_tok=2),
        from_llama,
    ),
    "qwen3-moe": (
        spec(moe=MOE, qk_norm=True),
        "Qwen3Moe",
        config(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, norm_topk_prob=True, head_dim=8),
        from_llama,
    ),
    "latent": (
        spec(latent=LATENT, num_kv_heads=4, norm_eps=1e-6),
        "DeepseekV3",
        config(
            rms_norm_eps=1e-6,
            q_lora_rank=24,
            kv_lora_rank=16,
            qk_nope_head_dim=8,
            qk_rope_head_dim=4,
            v_head_dim=6,
            num_key_value_heads=4,
            first_k_dense_replace=3,
            rope_interleave=False,
        ),
        from_llama,
    ),
}


def tokens(batch: int = 2) -> torch.Tensor:
    return torch.randint(0, 101, (batch, LENGTH), generator=torch.Generator().manual_seed(0))


def built(shape: ModelSpec) -> Decoder:
    model = Decoder(shape, sequence_length=LENGTH, loss_chunk=7)
    initialise(model, seed=3)
    return model


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_those_of_transformers(name: str) -> None:
    shape, family, settings, translate = VARIANTS[name]
    theirs = shaken(
        getattr(transformers, f"{family}ForCausalLM" if family != "GPT2" else "GPT2LMHeadModel")(
            getattr(transformers, f"{family}Config")(**settings)
        )
    )
    ours = decoder(shape, translate(theirs.state_dict(), shape))
    assert sum(p.numel() for p in ours.parameters()) == shape.parameters
    with torch.no_grad():
        expected, found = theirs(tokens()).logits, ours(tokens())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_nemotron_turns_half_of_each_head() -> None:
    """Its norm is LayerNorm with weights counted from one, so the weights are shifted on the way."""
    shape = spec(norm="layer", norm_bias=True, mlp="relu2", rotary_fraction=0.5)
    theirs = shaken(transformers.NemotronForCausalLM(transformers.NemotronConfig(**config(norm_eps=1e-5))))
    state = from_llama(theirs.state_dict(), shape)
    state = {key: value + 1 if "norm.weight" in key else value for key, value in state.items()}
    with torch.no_grad():
        expected, found = theirs(tokens()).logits, decoder(shape, state)(tokens())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("mlp", ["swiglu", "geglu", "gelu", "relu", "relu2", "xielu"])
@pytest.mark.parametrize("bias", [False, True])
def test_every_mlp_is_what_its_formula_says(mlp: str, bias: bool) -> None:
    shape = spec(mlp=mlp, mlp_bias=bias)
    model = built(shape)
    assert sum(p.numel() for p in model.parameters()) == shape.parameters
    assert model(tokens()).isfinite().all()


@settings(max_examples=25, deadline=None)
@given(
    experts=st.integers(2, 5),
    top=st.integers(1, 2),
    dense=st.integers(0, 1),
    shared=st.sampled_from([0, 12]),
    bias=st.booleans(),
    mlp=st.sampled_from(["swiglu", "gelu"]),
)
def test_the_parameters_of_experts_are_counted_exactly(
    experts: int, top: int, dense: int, shared: int, bias: bool, mlp: str
) -> None:
    moe = {"num_experts": experts, "experts_per_token": top, "expert_intermediate_size": 16}
    shape = spec(mlp=mlp, mlp_bias=bias, moe=moe | {"dense_layers": dense, "shared_intermediate_size": shared})
    model = Decoder(shape, sequence_length=8)
    assert sum(p.numel() for p in model.parameters()) == shape.parameters


def test_routing_losses_add_to_the_objective_alone() -> None:
    moe = MOE | {"balance_loss": 0.0, "router_z_loss": 0.0}
    plain, routed = built(spec(moe=moe)), built(spec(moe=moe | {"balance_loss": 0.5, "router_z_loss": 0.1}))
    targets = tokens().roll(-1, 1)
    targets[:, :3] = -100
    without, with_losses = plain(tokens(), targets), routed(tokens(), targets)
    torch.testing.assert_close(without[0], without[1])
    torch.testing.assert_close(with_losses[1], without[1])
    extra = float((with_losses[0] - without[0]).detach() / (targets != -100).sum())
    assert 0.5 <= extra < 0.5 * 4 + 0.1 * 10


def test_the_balance_loss_is_one_where_all_experts_are_chosen_alike() -> None:
    moe = spec(moe=MOE | {"balance_loss": 1.0}).moe
    assert moe is not None
    even = torch.zeros(8, 4)
    assert routing_loss(even, torch.arange(16).view(8, 2) % 4, moe) == pytest.approx(1.0)
    lopsided = torch.tensor([9.0, 9.0, -9.0, -9.0]).expand(8, 4)
    assert routing_loss(lopsided, torch.tensor([[0, 1]] * 8), moe) == pytest.approx(2.0, rel=1e-3)


def test_the_router_learns_from_both_losses() -> None:
    model = built(spec(moe=MOE | {"balance_loss": 0.5}))
    objective, _ = model(tokens(), tokens().roll(-1, 1))
    objective.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_experts_can_be_computed_again(recompute: Any) -> None:
    shape = spec(moe=MOE | {"balance_loss": 0.5}, qk_norm=True)
    gradients = []
    for mode in ("none", recompute):
        model = Decoder(shape, sequence_length=LENGTH, recompute=mode)
        initialise(model, seed=3)
        model(tokens(), tokens().roll(-1, 1))[0].backward()
        gradients.append([p.grad for p in model.parameters()])
    for kept, again in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, again)


@pytest.mark.parametrize("changes", [BLOOM | {"num_kv_heads": 4}, {"sliding_window": 6}, {"moe": MOE}])
def test_a_masked_document_is_what_it_is_alone(changes: dict[str, object]) -> None:
    model = built(spec(**changes))
    row = tokens(1)
    together = model(row, None, torch.tensor([[0] * 8 + [1] * 16]))[0, 8:]
    torch.testing.assert_close(together, model(row[:, 8:])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [BLOOM | {"num_kv_heads": 4}, {"mlp": "xielu"}, {"moe": MOE, "mlp_bias": True}])
def test_vectors_start_where_they_should(changes: dict[str, object]) -> None:
    model = built(spec(**changes))
    for name, parameter in model.named_parameters():
        if kind_of(name, parameter) != "vector":
            assert parameter.dim() >= 2 and not name.endswith("bias"), name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert ".activation." in name


def test_a_fresh_xielu_is_what_its_paper_begins_with() -> None:
    activation = built(spec(mlp="xielu")).layers["0"].get_submodule("mlp.activation")
    x = torch.tensor([-1e-2, 0.0, 1e-2])
    below, middle, above = activation(x).tolist()
    assert middle == 0
    assert above == pytest.approx(0.5 * 1e-2 + 0.8 * 1e-4, rel=1e-4)
    assert below == pytest.approx(-0.5 * 1e-2 + 0.4 * 1e-4, rel=1e-3)


def test_slopes_of_alibi() -> None:
    assert alibi_slopes(8) == [2**-i for i in range(1, 9)]
    assert alibi_slopes(3) == [2**-4, 2**-8, 2**-2]
