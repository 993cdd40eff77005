"""What is predicted of rows: the published table within the bars, memory and its gaps, and never a traceback."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiftrain.plan.throughput.constants import shipped
from aiftrain.plan.throughput.predictions import RowPrediction, predict
from aiftrain.plan.throughput.table import read_rows
from tests.plan.throughput.rows import ROW, row

TABLE = Path(__file__).parents[3] / "benchmarks" / "data" / "throughput.csv"


def told(**cells: Any) -> RowPrediction:
    return next(predict([row(**cells)], shipped()))


@cache
def published() -> dict[str, tuple[float, float]]:
    """Measured and predicted tokens/s of a device, for every row that has both."""
    rows = read_rows(TABLE)
    both = zip(rows, predict(rows, shipped()), strict=True)
    return {
        row["id"]: (float(row["tokens_per_s_per_gpu"]), one.tokens_per_s_per_gpu)
        for row, one in both
        if row["tokens_per_s_per_gpu"] and one.tokens_per_s_per_gpu
    }


def test_the_published_table_is_met() -> None:
    errors = sorted(abs(predicted / measured - 1) for measured, predicted in published().values())
    assert len(errors) > 1000
    assert median(errors) <= 0.10
    assert errors[int(0.9 * len(errors))] <= 0.25


@pytest.mark.parametrize(
    "name",
    [
        "modalities-leo-001",  # 2.7B on Leonardo, hybrid sharding
        "modalities-mn5-001",  # the same on MareNostrum 5
        "mosaic-028",  # MPT-13B on H100s, FSDP
        "dgxc-135",  # Llama 3.1 405B on 576 H100s, all axes
        "dgxc-166",  # Llama 3 70B on 128 H100s, JAX
        "aleph-001",  # Llama 13B on A100s, 3D-parallel
    ],
)
def test_known_runs_are_predicted_within_a_quarter(name: str) -> None:
    measured, predicted = published()[name]
    assert predicted == pytest.approx(measured, rel=0.25)


def test_the_range_lies_round_the_rate() -> None:
    one = told()
    assert one.low is not None
    assert one.high is not None
    assert one.tokens_per_s_per_gpu == pytest.approx(math.sqrt(one.low * one.high))


def test_a_machine_without_published_runs_has_a_wider_range() -> None:
    known, unseen = told(gpus=4), told(gpus=4, hardware="MI300A")
    assert all((known.low, known.high, unseen.low, unseen.high))
    assert unseen.high / unseen.low > known.high / known.low  # type: ignore[operator]


def test_figures_that_nobody_documents_are_assumed_and_said() -> None:
    unknown = told(hardware="MI300A")
    assert unknown.tokens_per_s_per_gpu is not None
    assert any("TFLOP/s of products" in words for words in unknown.assumed)
    assert any("GB/s of network" in words for words in unknown.assumed)


def test_flops_count_as_published_tables_do() -> None:
    """6 a matrix weight with the output projection, and 12 x layers x width x tokens."""
    one = told()
    weights = 32 * 12 * 2560**2 + 51200 * 2560
    flops = 6 * weights + 12 * 32 * 2560 * 2048
    assert one.tokens_per_s_per_gpu is not None
    assert one.tflops_per_gpu == pytest.approx(one.tokens_per_s_per_gpu * flops / 1e12)


def test_a_small_run_fits_and_a_large_one_does_not() -> None:
    assert told(micro_batch=1).fits is True
    crowded = told(micro_batch=64, tp=1, pp=1, gpus=8)
    assert crowded.fits is False
    assert crowded.memory_gib is not None
    assert crowded.memory_gib > 80


def test_recomputation_left_open_is_what_lets_it_fit() -> None:
    cells = {"micro_batch": 16, "tp": 1, "pp": 1, "gpus": 8}
    stated, left_open = told(**cells), told(recompute=None, **cells)
    assert stated.fits is False
    assert left_open.fits is True
    assert "memory with full recomputation" in left_open.assumed
    assert left_open.tokens_per_s_per_gpu == stated.tokens_per_s_per_gpu


def test_a_stage_left_open_is_what_lets_it_fit() -> None:
    cells = {"software": "DeepSpeed", "tp": 1, "pp": 1, "micro_batch": 1, "layers": 40, "hidden": 4096}
    one = told(**cells)
    assert one.fits is True
    assert any(words.startswith("ZeRO stage") for words in one.assumed)
    assert told(zero=0, **cells).fits is False


def test_a_model_far_too_large_has_no_rate() -> None:
    one = told(layers=96, hidden=12288, heads=96, gpus=8, tp=1, pp=1, zero=0)
    assert one.tokens_per_s_per_gpu is None
    assert one.fits is False
    assert one.why is not None
    assert "can only have been a part of it" in one.why


def test_unknown_memory_is_no_reason_to_say_nothing() -> None:
    one = told(hardware="B300")
    assert one.tokens_per_s_per_gpu is not None
    assert one.memory_gib is not None


def test_every_row_has_its_answer_in_its_place() -> None:
    rows = [row(), row(gpus="?"), row(), row(id="other", hardware="abacus")]
    answers = list(predict(rows, shipped()))
    assert [one.id for one in answers] == ["one", "one", "one", "other"]
    assert [one.why is None for one in answers] == [True, False, True, False]


@settings(max_examples=200, deadline=None)
@given(
    key=st.sampled_from([*ROW, "zero", "ep", "vpp", "cp_sp", "ffn", "kv_heads", "params_b", "notes"]),
    word=st.one_of(
        st.sampled_from(["", "0", "-1", "1e3", "1e9", "3.5", "n/a", "\u0661", "full", "SP=TP", "7", "3-hybrid", "😀"]),
        st.text(max_size=6),
        st.integers(1, 10**9).map(str),
    ),
)
def test_no_cell_ends_in_a_traceback(key: str, word: str) -> None:
    one = told(**{key: word})
    numbers = (one.tokens_per_s_per_gpu, one.low, one.high, one.tflops_per_gpu, one.memory_gib)
    assert all(number is None or (math.isfinite(number) and number > 0) for number in numbers)
    assert (one.tokens_per_s_per_gpu is None) == (one.why is not None)
