"""The arithmetic of shapes: counts by an independent sum, FLOPs by hand, and shapes that cannot be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aiftrain.errors import ConfigError
from aiftrain.plan.spec import resolve
from aiftrain.run.model import ModelSpec

LLAMA = {
    "name": "tiny",
    "vocab_size": 100,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
}
MOE = {"num_experts": 4, "experts_per_token": 2, "expert_intermediate_size": 8}


def shape(**changes: object) -> ModelSpec:
    return ModelSpec.model_validate(LLAMA | changes)


def test_llama_is_what_the_defaults_say() -> None:
    layer = 16 * 16 * 2 + 2 * 16 * 8 + 3 * 16 * 24 + 2 * 16
    assert shape().parameters == 2 * 100 * 16 + 3 * layer + 16
    assert shape().active_parameters == shape().parameters == shape().non_expert_parameters
    assert shape().expert_parameters == 0


def test_biases_norms_and_tables_are_counted() -> None:
    plain, full = (
        shape(mlp="gelu"),
        shape(
            mlp="gelu",
            norm="layer",
            norm_bias=True,
            qkv_bias=True,
            output_bias=True,
            mlp_bias=True,
            embedding_norm=True,
            positions="learned",
            max_positions=50,
        ),
    )
    biases = 3 * ((16 + 2 * 8) + 16 + 24 + 16 + 2 * 16) + 16
    assert full.parameters - plain.parameters == biases + 2 * 16 + 50 * 16
    assert full.active_matmul_parameters == plain.active_matmul_parameters


def test_experts_are_counted_once_and_the_idle_ones_apart() -> None:
    model = shape(moe=MOE | {"shared_intermediate_size": 12, "dense_layers": 1})
    expert, shared, router = 3 * 16 * 8, 3 * 16 * 12, 16 * 4
    assert model.expert_layers == 2
    assert model.expert_parameters == 2 * 4 * expert
    assert model.parameters == shape().parameters + 2 * (4 * expert + shared + router - 3 * 16 * 24)
    assert model.parameters - model.active_parameters == 2 * 2 * expert
    assert [model.has_experts(layer) for layer in range(3)] == [False, True, True]
    assert [shape(moe=MOE | {"every": 2}).has_experts(layer) for layer in range(3)] == [False, True, False]


def test_latent_attention_is_counted_as_deepseek_has_it() -> None:
    latent = {"query_rank": 1536, "kv_rank": 512, "nope_dim": 128, "rope_dim": 64, "value_dim": 128}
    model = shape(hidden_size=7168, num_heads=128, num_kv_heads=128, latent=latent)
    assert model.attention_parameters == 187_107_328  # of one layer of DeepSeek-V3, its two norms included


@given(
    layers=st.integers(1, 6),
    every=st.integers(1, 3),
    dense=st.integers(0, 5),
    top=st.integers(1, 4),
    shared=st.integers(0, 9),
    tied=st.booleans(),
)
def test_the_parts_make_the_whole(layers: int, every: int, dense: int, top: int, shared: int, tied: bool) -> None:
    moe = MOE | {"every": every, "dense_layers": min(dense, layers - 1), "experts_per_token": top}
    model = shape(num_layers=layers, tie_embeddings=tied, moe=moe | {"shared_intermediate_size": shared})
    parts = sum(model.layer_parameters(layer) for layer in range(layers)) + model.norm_parameters
    assert model.parameters == model.embedding_parameters + parts + model.head_parameters
    assert model.parameters == model.expert_parameters + model.non_expert_parameters
    assert model.active_parameters == model.parameters - model.expert_parameters * (4 - top) // 4


def test_flops_are_six_a_weight_and_causal_attention() -> None:
    model = shape()
    weights = 3 * (16 * 16 * 2 + 2 * 16 * 8 + 3 * 16 * 24) + 100 * 16
    assert model.flops_per_token(64) == 6 * weights + 12 * 3 * 16 * 64 / 2


def test_a_window_shortens_attention_where_it_is() -> None:
    length, window = 64, 16
    pairs = [min(i + 1, window) for i in range(length)]  # what attention really looks at
    mean = 16 - 16**2 / (2 * 64)
    assert mean == pytest.approx(sum(pairs) / length, abs=0.5)
    whole, local = shape(), shape(sliding_window=window)
    assert whole.flops_per_token(length) - local.flops_per_token(length) == 12 * 16 * 3 * (32 - mean)
    mixed = shape(sliding_window=window, global_every=3)
    assert whole.flops_per_token(length) - mixed.flops_per_token(length) == 12 * 16 * 2 * (32 - mean)
    assert local.flops_per_token(8) == whole.flops_per_token(8), "a window wider than the sequence is none"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"positions": "learned"}, "max_positions"),
        ({"max_positions": 5}, "max_positions"),
        ({"norm_bias": True}, "needs norm=layer"),
        ({"global_every": 2}, "needs sliding_window"),
        ({"rotary_fraction": 0.3}, "must be even"),
        ({"num_kv_heads": 3}, "num_kv_heads may be 1, 2, 4"),
        ({"moe": MOE | {"experts_per_token": 5}}, "experts_per_token 5 is more than num_experts 4"),
        ({"moe": MOE | {"dense_layers": 3}}, "leaves none of 3 layers"),
        ({"published_parameters": 5}, "published are 5"),
        ({"published_parameters": "7.5 billion"}, "neither a whole number nor one such as"),
        ({"qk_norm": True, "latent": {"kv_rank": 4, "nope_dim": 4, "rope_dim": 2, "value_dim": 4}}, "norms of its own"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        shape(**changes)


def test_a_rounded_count_is_compared_at_its_precision() -> None:
    assert shape(vocab_size=10**6, published_parameters="32.0M").parameters == 32_005_872
    with pytest.raises(ValidationError, match=r"published are 32\.00M"):
        shape(vocab_size=10**6, published_parameters="32.00M")


def test_alibi_and_odd_heads_go_together() -> None:
    assert shape(hidden_size=12, positions="alibi").head_size == 3


def test_a_sequence_may_not_outgrow_the_table_of_positions() -> None:
    longer = ["recipe=smoke", "factory=local", "model.positions=learned", "model.max_positions=100"]
    with pytest.raises(ConfigError, match=r"train\.sequence_length 128 is more than the 100 of model\.max_positions"):
        resolve(longer)
