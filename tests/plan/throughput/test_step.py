"""What must hold of the time of a step, whatever the layout."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.plan.throughput.constants import Constants
from aiftrain.plan.throughput.step import StepTime, step_time
from tests.plan.throughput.settings import EXPERTS, MODEL, layouts, on, setting

MORE = st.floats(1, 50)


def rate(**changes: Any) -> float:
    return step_time(setting(**changes)).tokens_per_s_per_device


def parts(time: StepTime) -> tuple[float, ...]:
    return (time.compute, time.tensor, time.pipeline, time.data, time.optimizer, time.overhead)


@given(axes=layouts())
def test_every_part_is_finite_and_none_negative(axes: dict[str, Any]) -> None:
    time = step_time(setting(**axes))
    assert all(math.isfinite(part) and part >= 0 for part in parts(time))
    assert time.total > 0


@given(axes=layouts(), more=MORE)
def test_a_faster_device_is_never_slower(axes: dict[str, Any], more: float) -> None:
    one = setting(constants=Constants(tile=0), **axes)
    faster = on(one, matmul_bf16_tflops=271 * more, memory_gb_per_s=2000 * more)
    assert step_time(faster).total <= step_time(one).total * (1 + 1e-9)


@given(axes=layouts(), more=MORE, link=st.sampled_from(("intra_node_gb_per_s", "inter_node_gb_per_s")))
def test_more_bandwidth_is_never_slower(axes: dict[str, Any], more: float, link: str) -> None:
    one = setting(**axes)
    faster = on(one, **{link: getattr(one.hardware, link) * more})
    assert step_time(faster).total <= step_time(one).total * (1 + 1e-9)


@given(axes=layouts())
def test_more_micro_batches_shrink_the_share_of_waiting(axes: dict[str, Any]) -> None:
    few, many = (
        step_time(setting(**axes | {"accumulation": axes["accumulation"] * more, "zero_stage": 1})) for more in (1, 4)
    )
    assert many.pipeline / many.total <= few.pipeline / few.total + 1e-9
    assert many.tokens_per_s_per_device >= few.tokens_per_s_per_device * (1 - 1e-9)


@given(axes=layouts())
def test_larger_micro_batches_are_never_slower_by_the_token(axes: dict[str, Any]) -> None:
    axes |= {"pipeline_parallel": 1}
    small, large = (step_time(setting(**axes | {"micro_batch": size})) for size in (1, 4))
    assert large.tokens_per_s_per_device >= small.tokens_per_s_per_device * (1 - 1e-9)


@given(axes=layouts())
def test_stage_3_never_moves_less_than_stage_1(axes: dict[str, Any]) -> None:
    first, third = (step_time(setting(**axes | {"zero_stage": stage})) for stage in (1, 3))
    if axes["accumulation"] > 1:
        assert third.data >= 0.5 * first.data
    assert third.optimizer == first.optimizer


def test_stage_2_shares_out_gradients_after_every_micro_batch_and_stage_1_once() -> None:
    def added(stage: int, accumulation: int) -> float:
        return step_time(setting(zero_stage=stage, accumulation=accumulation, micro_batch=1)).data

    assert added(2, 1) == added(1, 1) == added(1, 8)
    assert added(2, 8) > 1.3 * added(2, 1)


def test_stages_without_data_parallelism_are_alike() -> None:
    alone = [step_time(setting(data_parallel=1, zero_stage=stage)).data for stage in range(4)]
    assert alone == [0.0] * 4


@given(axes=layouts(), nodes=st.sampled_from((2, 4, 16)))
def test_more_replicas_never_speed_up_a_device(axes: dict[str, Any], nodes: int) -> None:
    """Weak scaling: each replica keeps its work. The optimizer, which more ranks share, is left out."""
    axes |= {"data_parallel": 8}
    one, many = (step_time(setting(constants=Constants(), **axes | {"data_parallel": 8 * more})) for more in (1, nodes))
    assert many.total - many.optimizer >= (one.total - one.optimizer) * (1 - 1e-9)


@pytest.mark.parametrize("stages", [2, 4, 8])
def test_a_pipeline_waits_for_its_ends(stages: int) -> None:
    """p - 1 of m + p - 1 slots are empty (arXiv 2104.04473, section 2.2)."""
    free = Constants(layer_seconds=0, step_seconds=0, straggle=0, hop_seconds=0)
    fast = {"intra_node_gb_per_s": 1e9, "inter_node_gb_per_s": 1e9}
    time = step_time(on(setting(constants=free, data_parallel=1, pipeline_parallel=stages, accumulation=8), **fast))
    assert time.pipeline / time.compute == pytest.approx((stages - 1) / 8, rel=1e-3)


def test_an_interleaved_pipeline_waits_less() -> None:
    axes: dict[str, Any] = {"data_parallel": 2, "pipeline_parallel": 4, "accumulation": 8}
    plain, mixed = (step_time(setting(virtual_stages=chunks, **axes)) for chunks in (1, 6))
    assert mixed.pipeline < plain.pipeline / 2


def test_tensor_parallelism_across_nodes_is_slow() -> None:
    assert rate(tensor_parallel=8, data_parallel=1) < 0.7 * rate(tensor_parallel=4, data_parallel=2)


def test_hybrid_sharding_spares_a_slow_network() -> None:
    slow = on(setting(data_parallel=64, zero_stage=3, micro_batch=1), inter_node_gb_per_s=5)
    hybrid = replace(slow, layout=slow.layout.model_copy(update={"shard_group": 4}))
    assert step_time(hybrid).data < step_time(slow).data


def test_experts_cost_what_their_tokens_travel() -> None:
    inside, across = (step_time(setting(EXPERTS, expert_parallel=size)).tensor for size in (4, 8))
    assert 0 < inside < across


def test_context_parallelism_sends_keys_and_values_round() -> None:
    assert step_time(setting(context_parallel=2, data_parallel=4)).tensor > 0


def test_recomputation_costs_a_third_at_most() -> None:
    plain, full = rate(), rate(recompute="full")
    assert 0.7 < full / plain < 0.8


def test_eight_bits_gain_less_than_their_products_do() -> None:
    assert 1.1 < rate(precision="fp8") / rate() < 1.75


def test_the_rate_counts_every_device_and_token() -> None:
    time = step_time(setting())
    assert time.tokens == 8 * 4 * 4 * 2048
    assert time.tokens_per_s_per_device == pytest.approx(time.tokens / time.total / 8)
    flops = MODEL.flops_per_token(2048) * time.tokens_per_s_per_device
    assert 0.3 < flops / 312e12 < 0.7
