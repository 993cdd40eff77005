"""A layer's products and memory traffic: what makes them slower, and what the rate of a device is taken to be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.plan.groups import Groups
from aiftrain.plan.throughput.constants import Attention, Constants, Stack
from aiftrain.plan.throughput.layer import (
    Device,
    LayerTime,
    UnknownFigure,
    element_bytes,
    gain,
    head_time,
    layer_time,
    matmul_tflops,
)
from aiftrain.run.machine import Hardware
from aiftrain.run.model import ModelSpec
from tests.plan.throughput.settings import EXPERTS, HARDWARE, MODEL, STACK, layout

LENGTH = 2048


def device(precision: str = "bf16", stack: Stack = STACK, **figures: Any) -> Device:
    return Device.of(HARDWARE.model_copy(update=figures), precision, Constants(), stack)


def one_layer(model: ModelSpec = MODEL, length: int = LENGTH, stack: Stack = STACK, **axes: Any) -> LayerTime:
    where = device(stack=stack)
    return layer_time(
        model, layout(**axes), length, where, Constants(), stack, experts=model.moe is not None, window=False
    )


def shipped(name: str) -> Hardware:
    return Hardware.model_validate(Groups().read("hardware", name))


@given(m=st.integers(1, 10**6), n=st.integers(1, 10**5), k=st.integers(1, 10**5))
def test_a_product_never_beats_the_rate(m: int, n: int, k: int) -> None:
    where = device()
    assert 0 < 2.0 * m * n * k / where.product(m, n, k) < where.linear


@given(m=st.integers(1, 10**6), n=st.integers(1, 10**5), k=st.integers(1, 10**5))
def test_larger_products_are_nearer_to_the_rate(m: int, n: int, k: int) -> None:
    where = device()
    assert where.product(2 * m, n, k) <= 2 * where.product(m, n, k)


def test_a_large_product_reaches_what_was_fitted() -> None:
    side = 2**20
    reached = 2 * side**3 / device().product(side, side, side)
    assert reached == pytest.approx(271e12 * Constants().matmul_share, rel=1e-3)


def test_the_backward_pass_takes_about_twice_the_forward_one() -> None:
    time = one_layer()
    assert 1.9 < time.backward / time.forward < 2.3


def test_full_recomputation_does_the_forward_pass_again() -> None:
    plain, full = one_layer(), one_layer(recompute="full")
    assert full.forward == plain.forward
    assert full.backward == pytest.approx(plain.backward + plain.forward)


def test_selective_recomputation_lies_between() -> None:
    plain, some, full = (one_layer(recompute=mode).backward for mode in ("none", "selective", "full"))
    assert plain < some < full


def test_tensor_parallelism_shares_out_less_than_all() -> None:
    assert 0.5 < one_layer(tensor_parallel=2).forward / one_layer().forward < 1


@pytest.mark.parametrize("attention", ["flash-1", "fused-softmax", "unfused"])
def test_other_attention_is_slower_than_one_kernel(attention: Attention) -> None:
    assert one_layer(stack=STACK.model_copy(update={"attention": attention})).forward > one_layer().forward


def test_attention_grows_with_the_square_of_the_length() -> None:
    short, long = (one_layer(length=length, micro_batch=16384 // length).forward for length in (2048, 16384))
    assert long > short


def test_a_window_caps_what_attention_costs() -> None:
    model = MODEL.model_copy(update={"sliding_window": 512})
    where, constants = device(), Constants()
    times = [
        layer_time(model, layout(), 8192, where, constants, STACK, experts=False, window=window).forward
        for window in (True, False)
    ]
    assert times[0] < times[1]


def test_experts_that_are_shared_out_fill_up() -> None:
    """With eight ranks sharing them out each has one expert with eight times the tokens: larger products."""
    assert one_layer(EXPERTS, expert_parallel=8).forward < one_layer(EXPERTS).forward


def test_a_larger_vocabulary_takes_longer() -> None:
    large = MODEL.model_copy(update={"vocab_size": 250_000})
    small_time, large_time = (head_time(model, layout(), LENGTH, device()) for model in (MODEL, large))
    assert 4 < large_time / small_time < 6


def test_eight_bits_are_faster_only_where_the_data_sheet_says_so() -> None:
    assert gain(HARDWARE, "fp8", Constants()) == pytest.approx(1.75)
    assert gain(HARDWARE.model_copy(update={"peak_fp8_tflops": None}), "fp8", Constants()) == 1.0


@pytest.mark.parametrize(
    ("name", "share"), [("a100-40", 1 / 16), ("h100", 1 / 16), ("v100-16", 1 / 8), ("mi250x", 1 / 4), ("mi300a", 1 / 8)]
)
def test_fp32_products_are_as_slow_as_the_data_sheet_says(name: str, share: float) -> None:
    assert gain(shipped(name), "fp32", Constants()) == share


def test_a_processors_rate_is_that_of_its_precision() -> None:
    assert gain(HARDWARE.model_copy(update={"kind": "cpu"}), "fp32", Constants()) == 1.0


def test_fp32_moves_twice_the_bytes() -> None:
    assert (element_bytes("fp32"), element_bytes("bf16"), element_bytes("fp8")) == (4, 2, 2)


def test_an_unmeasured_rate_is_a_share_of_the_data_sheets() -> None:
    assert matmul_tflops(HARDWARE) == 271
    assert 200 < matmul_tflops(HARDWARE.model_copy(update={"matmul_bf16_tflops": None})) < 271


def test_without_bf16_the_rate_of_fp16_counts() -> None:
    assert 80 < matmul_tflops(shipped("v100-32")) < 125


def test_a_machine_of_unknown_rate_is_named() -> None:
    unknown = HARDWARE.model_copy(update={"matmul_bf16_tflops": None, "peak_bf16_tflops": None})
    with pytest.raises(UnknownFigure, match="peak_bf16_tflops of gpu"):
        matmul_tflops(unknown)


def test_unknown_bandwidth_is_guessed_from_the_rate() -> None:
    guessed = device(memory_gb_per_s=None)
    assert 0.3 < guessed.stream / device().stream < 1
    assert device(memory_gb_per_s=None, kind="cpu", matmul_bf16_tflops=1).stream == pytest.approx(160e9)
