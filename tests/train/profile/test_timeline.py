"""Where time goes: by real traces of two gloo ranks, of which rank 1 sleeps 30 ms in reading data, and by made-up ones
of GPUs, whose times can be told by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from aiftrain.run.profile import MEANINGS
from aiftrain.train.profile.timeline import ORDER, Timeline, quickest, read_timeline

TRACES = Path(__file__).with_name("traces")


def recorded(stage: int) -> tuple[Timeline, Timeline]:
    """Two steps of a small model under DeepSpeed at that ZeRO stage, with torch 2.13."""
    one, other = (
        read_timeline(json.loads(gzip.decompress(file.read_bytes()))["traceEvents"])
        for file in sorted(TRACES.glob(f"gloo-zero{stage}-rank*"))
    )
    return one, other


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_of_a_real_trace_the_parts_add_up_to_the_wall_time(stage: int) -> None:
    ranks = recorded(stage)
    shortest = quickest([rank.durations for rank in ranks])
    assert shortest
    for rank in ranks:
        assert not rank.on_gpu
        parts = rank.parts(shortest)
        assert sum(parts.values()) == pytest.approx(rank.wall, rel=1e-9)
        assert min(parts[part] for part in ("compute", "optimizer", "communication", "host")) > 0
        assert parts["checkpoint"] == parts["evaluation"] == 0


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_who_sleeps_reads_data_and_the_other_waits(stage: int) -> None:
    ranks = recorded(stage)
    shortest = quickest([rank.durations for rank in ranks])
    assert shortest
    quick, slow = (rank.parts(shortest) for rank in ranks)
    assert slow["data"] > 0.06 > 10 * quick["data"]
    assert 0.04 < quick["waiting"] < 0.1
    assert quick["waiting"] > 2 * slow["waiting"]


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_alone_a_trace_tells_no_waiting_from_communication(stage: int) -> None:
    alone, _ = recorded(stage)
    assert quickest([alone.durations]) is None
    parts = alone.parts({})
    assert parts["waiting"] == 0
    assert parts["communication"] > 0.04
    assert sum(parts.values()) == pytest.approx(alone.wall, rel=1e-9)


def event(cat: str, name: str, ts: float, dur: float, **args: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": 7, "args": args}


def kernel(name: str, ts: float, dur: float, launched: int = 0) -> dict[str, Any]:
    return event("kernel", name, ts, dur, correlation=launched)


def nccl(ts: float, dur: float, *, name: str = "ncclDevKernel_AllReduce_Sum_f32_RING_LL", group: str = "[0, 1]") -> Any:
    return event("kernel", name, ts, dur, **{"Collective name": "allreduce", "Process Group Ranks": group})


STEP = event("user_annotation", "ProfilerStep#3", 0, 100)


def on_gpu(*events: dict[str, Any]) -> Timeline:
    return read_timeline([STEP, *events])


def microseconds(timeline: Timeline, shortest: dict[tuple[str, int], float] | None = None) -> dict[str, float]:
    parts = timeline.parts(shortest or {})
    assert sum(parts.values()) == pytest.approx(timeline.wall)
    return {part: round(seconds * 1e6, 6) for part, seconds in parts.items() if seconds > 1e-12}


def test_communication_under_computation_is_hidden_and_the_rest_exposed() -> None:
    timeline = on_gpu(kernel("gemm", 0, 40), nccl(30, 30), kernel("gemm", 50, 5))
    assert timeline.on_gpu
    assert microseconds(timeline) == {"compute": 45, "communication": 15, "host": 40}
    assert timeline.hidden_communication == pytest.approx(15e-6)


def test_kernels_on_several_streams_count_once() -> None:
    assert microseconds(on_gpu(kernel("one", 0, 60), kernel("two", 20, 60), nccl(10, 20))) == {
        "compute": 80,
        "host": 20,
    }


def test_copies_and_fills_are_computation_and_rccl_talks_too() -> None:
    copies = (event("gpu_memcpy", "Memcpy DtoD", 0, 10), event("gpu_memset", "Memset", 10, 5))
    amd = kernel("rcclGenericKernel", 20, 10)
    assert microseconds(on_gpu(kernel("gemm", 40, 1), *copies, amd)) == {"compute": 16, "communication": 10, "host": 74}


def test_what_the_optimizer_launches_is_its_own_whenever_it_runs() -> None:
    mark = event("user_annotation", "aiftrain: optimizer", 20, 10)
    launches = (
        event("cuda_runtime", "cudaLaunchKernel", 5, 1, correlation=1),
        event("cuda_driver", "cuLaunchKernel", 25, 1, correlation=2),
    )
    kernels = (kernel("backward", 22, 20, 1), kernel("adam", 50, 30, 2))
    assert microseconds(on_gpu(mark, *launches, *kernels)) == {"compute": 20, "optimizer": 30, "host": 50}


def test_an_idle_device_waits_for_data_or_for_the_host() -> None:
    reading = event("user_annotation", "aiftrain: data", 0, 30)
    assert microseconds(on_gpu(reading, kernel("gemm", 20, 40))) == {"data": 20, "compute": 40, "host": 40}


def test_saving_and_evaluating_are_told_as_such_whatever_happens_in_them() -> None:
    marks = (
        event("user_annotation", "aiftrain: checkpoint", 50, 20),
        event("user_annotation", "aiftrain: evaluation", 70, 30),
    )
    timeline = on_gpu(*marks, kernel("gemm", 0, 60), nccl(65, 10), kernel("gemm", 80, 10))
    assert microseconds(timeline) == {"compute": 50, "checkpoint": 20, "evaluation": 30}


def test_who_was_longer_in_a_message_waited() -> None:
    """Rank 1 comes 20 later to the first, and rank 0 10 later to the second."""
    early = on_gpu(kernel("gemm", 0, 10), nccl(10, 30), kernel("gemm", 40, 20), nccl(60, 10))
    late = on_gpu(kernel("gemm", 0, 30), nccl(30, 10), kernel("gemm", 40, 10), nccl(50, 20))
    shortest = quickest([early.durations, late.durations])
    assert microseconds(early, shortest) == {"compute": 30, "waiting": 20, "communication": 20, "host": 30}
    assert microseconds(late, shortest) == {"compute": 40, "waiting": 10, "communication": 20, "host": 30}


def test_a_message_of_other_ranks_says_nothing_of_ones_own() -> None:
    ours, theirs = on_gpu(nccl(0, 30)), on_gpu(nccl(0, 5, group="[2, 3]"))
    shortest = quickest([ours.durations, theirs.durations])
    assert microseconds(ours, shortest)["communication"] == 30


def test_a_message_that_goes_while_another_is_waited_for_is_communication() -> None:
    early = on_gpu(nccl(0, 40), nccl(0, 20, name="ncclDevKernel_AllGather", group="[0]"))
    shortest = {("allreduce [0, 1]", 0): 10.0}
    assert microseconds(early, shortest) == {"communication": 30, "waiting": 10, "host": 60}


def test_ranks_whose_messages_do_not_match_are_not_compared() -> None:
    assert quickest([on_gpu(nccl(0, 30)).durations, on_gpu(nccl(0, 5), nccl(9, 5)).durations]) is None


def test_messages_outside_of_the_steps_do_not_count() -> None:
    assert microseconds(on_gpu(kernel("gemm", 0, 10), nccl(-50, 20), nccl(90, 50))) == {
        "compute": 10,
        "communication": 10,
        "host": 80,
    }


def test_a_trace_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="no step"):
        read_timeline([kernel("gemm", 0, 1)])


def test_every_part_has_its_place_and_its_meaning() -> None:
    assert sorted(ORDER) == sorted(MEANINGS)
