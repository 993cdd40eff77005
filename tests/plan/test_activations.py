"""Activations by arithmetic: against counting by hand, published formulas, and what must hold for any numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.plan.activations import LayerActivations
from aiftrain.plan.engine_traits import FSDP, MEGATRON, OURS, EngineTraits
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.model import ModelSpec

TRAITS = (OURS, MEGATRON, FSDP)


def layout(**changes: object) -> ParallelLayout:
    whole = {"nodes": 1, "ranks_per_node": 8, "world_size": 8, "data_parallel": 8, "zero_stage": 1}
    return ParallelLayout.model_validate(whole | {"micro_batch": 1, "accumulation": 1} | changes)


def llama(**changes: object) -> ModelSpec:
    sizes = {"hidden_size": 4096, "intermediate_size": 11008, "num_layers": 32, "num_heads": 32, "num_kv_heads": 32}
    return ModelSpec.model_validate({"name": "llama", "vocab_size": 32000} | sizes | changes)


def activations(
    model: ModelSpec, traits: EngineTraits, *, length: int = 2048, experts: bool = False, **changes: object
) -> LayerActivations:
    return LayerActivations(
        model, layout(**changes), traits, sequence_length=length, element=2, residual=2, experts=experts
    )


def test_a_llama_layer_by_hand() -> None:
    """bf16, flash attention: norm inputs 2h, their results 2h, queries, keys, values and result 4h, gate, up,
    silu(gate) and the product 4f; and in fp32 one number for either norm and one for each head."""
    kept = activations(llama(), FSDP).kept("none")
    assert kept == 2 * (8 * 4096 + 4 * 11008) + 4 * (2 + 32)


def test_the_papers_formula_without_dropout_is_met() -> None:
    """Korthikanti et al. (arXiv 2205.05198, eq. 1): 34 s b h + 5 a s^2 b bytes, of which dropout's masks and copies
    take 2 (two masks of one byte) and 3 a s^2 b (a mask, and the probabilities after it)."""
    gpt = llama(norm="layer", norm_bias=True, mlp="gelu", intermediate_size=4 * 4096)
    unfused = replace(MEGATRON, attention="fused softmax")
    kept = activations(gpt, unfused).kept("none")
    assert kept == pytest.approx((34 - 2) * 4096 + 2 * 32 * 2048, rel=1e-3)


def test_sequence_parallelism_shares_out_everything() -> None:
    """The same paper, eq. 4: with tensor and sequence parallelism a rank keeps one part in t of it all."""
    alone = activations(llama(), MEGATRON).kept("none")
    tensor = activations(llama(), MEGATRON, tensor_parallel=8).kept("none")
    both = activations(llama(), MEGATRON, tensor_parallel=8, sequence_parallel=True).kept("none")
    assert both == pytest.approx(alone / 8)
    assert both < tensor < alone


def test_megatrons_selective_mode_forgets_the_scores_only() -> None:
    unfused = activations(llama(), replace(MEGATRON, attention="unfused"))
    assert unfused.kept("none") - unfused.kept("selective") == (2 + 4) * 32 * 2048
    assert unfused.kept("selective") == activations(llama(), MEGATRON).kept("selective")


def test_a_full_layer_keeps_its_input() -> None:
    assert activations(llama(), OURS).kept("full") == 2 * 4096


def test_experts_cost_what_their_tokens_do() -> None:
    moe = {"num_experts": 8, "experts_per_token": 2, "expert_intermediate_size": 11008}
    dense, routed = (activations(llama(moe=moe), OURS, experts=experts).kept("none") for experts in (False, True))
    hidden, inner = 2 * 4096, 4 * 2 * 11008
    router = 4 * (4096 + 5 * 8)
    assert routed - dense == inner + 2 * 2 * hidden + router - hidden


@given(
    heads=st.integers(1, 8),
    groups=st.integers(1, 4),
    half_head=st.integers(1, 64),
    inner=st.integers(1, 4096),
    length=st.integers(1, 4096),
    tensor=st.sampled_from([1, 2, 4]),
    sequence_parallel=st.booleans(),
    traits=st.sampled_from(TRAITS),
)
def test_more_recomputation_never_keeps_more(
    heads: int,
    groups: int,
    half_head: int,
    inner: int,
    length: int,
    tensor: int,
    sequence_parallel: bool,
    traits: EngineTraits,
) -> None:
    queries = heads * groups
    model = llama(hidden_size=queries * 2 * half_head, intermediate_size=inner, num_heads=queries, num_kv_heads=heads)
    layer = activations(model, traits, length=length, tensor_parallel=tensor, sequence_parallel=sequence_parallel)
    none, selective, full = (layer.kept(mode) for mode in ("none", "selective", "full"))
    assert full < selective <= none
    assert layer.recomputed("none") <= layer.recomputed("selective") <= layer.recomputed("full")
