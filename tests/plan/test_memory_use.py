"""The peak of one rank: its parts by hand, where it lies, what each kind of parallelism takes away, and its speed."""

from __future__ import annotations

import time
import timeit
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.plan import room
from aiftrain.plan.engine_traits import FSDP, MEGATRON, MEGATRON_DEEPSPEED, OURS, OURS_DENSE, EngineTraits
from aiftrain.plan.memory import GIB, state_bytes
from aiftrain.plan.memory_use import MemoryUse, memory_use
from aiftrain.plan.parameters import tensor_sizes
from aiftrain.plan.published_traits import ALEPH_ALPHA, LLM_FOUNDRY, traits_of
from aiftrain.plan.spec import resolve
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.model import ModelSpec
from aiftrain.run.optimizer import parameter_groups
from aiftrain.run.precision import Precision

LLAMA_8B = ModelSpec(
    name="llama-8b",
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
)
EXPERTS = {"num_experts": 8, "experts_per_token": 2, "expert_intermediate_size": 14336}
MIXTURE = ModelSpec.model_validate(LLAMA_8B.model_dump() | {"moe": EXPERTS})
FEW_WORDS = LLAMA_8B.model_copy(update={"vocab_size": 256})


def use(traits: EngineTraits = OURS, model: ModelSpec = LLAMA_8B, precision: str = "bf16", **changes: Any) -> MemoryUse:
    whole = {"nodes": 1, "ranks_per_node": 8, "world_size": 8, "data_parallel": 8, "zero_stage": 1}
    layout = ParallelLayout.model_validate(whole | {"micro_batch": 1, "accumulation": 8} | changes)
    return memory_use(model, layout, sequence_length=8192, precision=precision, traits=traits)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_states_are_those_that_deepspeed_allocates_but_for_padding(stage: int, precision: Precision) -> None:
    ours = use(zero_stage=stage, precision=precision)
    exact = state_bytes(tensor_sizes(LLAMA_8B, parameter_groups()), 8, stage, states=(2, 2), weights=precision)
    assert ours.weights == pytest.approx(exact.weights, rel=1e-4)
    assert ours.optimizer == pytest.approx(exact.optimizer, rel=1e-4)
    if (stage, precision) != (2, "fp32"):  # there whole tensors lie beside the part
        assert ours.gradients == pytest.approx(exact.gradients, rel=1e-4)


def test_total_is_the_sum_of_its_parts() -> None:
    parts = use().model_dump(exclude={"peak_at", "stage"})
    assert use().total == sum(parts.values())


def test_activations_of_a_llama_8b_by_hand() -> None:
    """32 layers of 8,192 tokens. With a dense mask, that mask, and keys and values for each query head."""
    layer = 2 * (6 * 4096 + 2 * 1024 + 4 * 14336) + 4 * (2 + 32)
    dense = layer + 2 * 2 * (4096 - 1024)
    assert use().peak_at == "forward"
    assert use().activations == 8192 * 32 * layer
    assert use(OURS_DENSE).activations == 8192 * 32 * dense + 2 * 8192**2


@pytest.mark.parametrize(
    ("overrides", "dense"),
    [
        ((), False),
        (("train.precision=fp32",), True),
        (("train.precision=fp32", "train.compile=true"), False),
        (("train.attention=dense",), True),
        (("model=bloom-1.1b",), True),
        (("factory=jeanzay-v100",), True),  # flash attention needs what came with bf16, the A100
    ],
)
def test_which_attention_the_plan_counts_with(overrides: tuple[str, ...], dense: bool) -> None:
    spec = resolve(["recipe=eu-llm-1b", "factory=lumi", "parallelism=zero1", "train.sequence_length=2048", *overrides])
    assert (room._traits(spec, "fp32" if spec.train.precision == "fp32" else "bf16") == OURS_DENSE) is dense


def test_a_large_vocabulary_makes_the_loss_the_peak() -> None:
    whole = use(replace(OURS, loss_chunk=None), recompute="full")
    chunked = use(recompute="full")
    assert whole.peak_at == "forward"
    assert whole.logits > 16 * 8192 * 128256
    assert chunked.total < whole.total - 10 * GIB


def test_with_small_batches_the_step_is_the_peak_of_fp32() -> None:
    """DeepSpeed copies the rank's part of fp32 gradients for its step."""
    traits = replace(OURS, document_mask=False, bucket_elements=0)
    layout = ParallelLayout(
        nodes=1,
        ranks_per_node=2,
        world_size=2,
        data_parallel=2,
        zero_stage=1,
        micro_batch=1,
        accumulation=1,
        recompute="full",
    )
    peak = memory_use(FEW_WORDS, layout, sequence_length=16, precision="fp32", traits=traits)
    assert peak.peak_at == "optimizer step"
    assert peak.buffers == pytest.approx(4 * FEW_WORDS.parameters / 2, rel=1e-3)
    assert peak.activations == peak.logits == 0


def test_the_first_pipeline_stage_waits_for_the_most_micro_batches() -> None:
    def passes(**changes: Any) -> MemoryUse:
        return use(MEGATRON, FEW_WORDS, pipeline_parallel=4, data_parallel=2, **changes)

    def activations(**changes: int) -> float:
        return passes(**changes).activations

    one = activations(accumulation=1)
    assert passes().stage == 0
    assert activations(accumulation=2) > 1.8 * one
    assert activations(accumulation=4) == activations(accumulation=64), "as many as there are stages"
    interleaved = activations(accumulation=64, virtual_stages=2) / activations(accumulation=64)
    assert interleaved == pytest.approx(1 + 3 / 8, abs=0.02), "1 + (p - 1) / (p v): arXiv 2205.05198, section 4.2.3"


def test_the_last_stage_is_the_fullest_where_logits_weigh_most() -> None:
    peak = use(MEGATRON, pipeline_parallel=2, data_parallel=4, accumulation=2, recompute="full", micro_batch=4)
    assert (peak.stage, peak.peak_at) == (1, "forward")


def test_expert_parallelism_shares_out_experts_alone() -> None:
    weights = {ranks: use(MEGATRON, MIXTURE, expert_parallel=ranks).weights for ranks in (1, 8)}
    assert weights[1] - weights[8] == pytest.approx(2 * MIXTURE.expert_parameters * 7 / 8, rel=1e-6)
    optimizer = {ranks: use(MEGATRON, MIXTURE, expert_parallel=ranks).optimizer for ranks in (1, 8)}
    assert optimizer[1] == pytest.approx(optimizer[8]), "shared out over the ranks that have the same experts"


def test_hybrid_sharding_shares_within_its_group() -> None:
    full = use(FSDP, zero_stage=3, data_parallel=64, world_size=64)
    hybrid = use(FSDP, zero_stage=3, data_parallel=64, world_size=64, shard_group=8)
    assert hybrid.weights == pytest.approx(8 * full.weights, rel=1e-6)


def test_software_by_the_names_that_tables_give_it() -> None:
    assert traits_of("NeMo 24.07") is MEGATRON
    assert traits_of("Megatron-DeepSpeed (OpenLLM fork)") is MEGATRON_DEEPSPEED
    assert traits_of("torchtitan (FSDP2)") is FSDP
    assert traits_of("llm-foundry/Composer FSDP") is LLM_FOUNDRY
    study = "Aleph Alpha 3D-parallel trainer"
    assert traits_of(study, "kernel: torch") == ALEPH_ALPHA
    assert traits_of(study, "kernel: fused").attention == "fused softmax"
    flash = traits_of(study, "kernel: flash_attention2 + RMS kernel")
    assert (flash.attention, flash.fused_norm) == ("flash", True)


@given(
    traits=st.sampled_from([OURS, MEGATRON, FSDP, MEGATRON_DEEPSPEED]),
    stage=st.integers(0, 3),
    tensor=st.sampled_from([1, 2, 4, 8]),
    pipeline=st.sampled_from([1, 2, 4]),
    micro=st.integers(1, 8),
)
def test_more_ranks_never_need_more_and_more_tokens_never_less(
    traits: EngineTraits, stage: int, tensor: int, pipeline: int, micro: int
) -> None:
    def total(**changes: Any) -> int:
        same: dict[str, Any] = {
            "zero_stage": stage,
            "tensor_parallel": tensor,
            "pipeline_parallel": pipeline,
            "micro_batch": micro,
        }
        return use(traits, **(same | changes)).total

    assert total(data_parallel=16) <= total()
    assert total(tensor_parallel=2 * tensor) <= total()
    assert total(sequence_parallel=True) <= total()
    assert total(micro_batch=micro + 1) >= total()
    assert total(recompute="full") <= total(recompute="selective") <= total() * 1.001
    if stage:
        assert total() <= total(zero_stage=stage - 1) or traits.live_elements or traits.gathered_layers


def test_a_layout_takes_microseconds() -> None:
    """Thousands a second, the layout's validation included: in this process, whatever others do beside it."""
    use()
    looks = timeit.repeat(
        lambda: use(MEGATRON, pipeline_parallel=2, data_parallel=4), number=50, repeat=5, timer=time.process_time
    )
    assert min(looks) / 50 < 500e-6
