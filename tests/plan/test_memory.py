"""Parameters and model states: the formulas against counting by hand, and against what must hold for any numbers."""

from __future__ import annotations

from itertools import accumulate
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.plan.estimate import estimate
from aiftrain.plan.memory import GIB, choose_precision, host_bytes, memory_per_rank, state_bytes, states_of
from aiftrain.plan.parameters import Groups
from aiftrain.plan.spec import resolve
from aiftrain.run.model import ModelSpec
from aiftrain.run.precision import Precision
from aiftrain.run.spec import RunSpec
from tests.conftest import small_spec

SIZES = st.lists(st.integers(1, 10**9), min_size=1, max_size=30).map(tuple)
GROUPS = st.tuples(SIZES, SIZES)
RANKS = st.integers(1, 2000)
STAGES = st.integers(1, 3)
PRECISIONS: st.SearchStrategy[Precision] = st.sampled_from(get_args(Precision))


@given(GROUPS, RANKS, STAGES, PRECISIONS)
def test_all_ranks_together_hold_everything_but_padding_adds_little(
    groups: Groups, ranks: int, stage: int, weights: Precision
) -> None:
    parameters, tensors = sum(map(sum, groups)), sum(map(len, groups))
    states = state_bytes(groups, ranks, stage, states=(2, 2), weights=weights)
    padding = 2 * ranks * max(2, tensors)
    assert 12 * parameters <= states.optimizer * ranks < 12 * (parameters + padding)
    whole = states.weights * (ranks if stage == 3 else 1)
    assert (
        (4 if weights == "fp32" else 2) * parameters <= whole < (4 if weights == "fp32" else 2) * (parameters + padding)
    )
    assert states.gradients * (ranks if stage > 1 else 1) >= 4 * parameters


@given(GROUPS, PRECISIONS)
def test_one_rank_holds_what_no_stage_could_share(groups: Groups, weights: Precision) -> None:
    totals = {stage: state_bytes(groups, 1, stage, states=(2, 2), weights=weights) for stage in (1, 2, 3)}
    assert totals[3].optimizer <= totals[2].optimizer == totals[1].optimizer
    assert totals[1].gradients >= totals[2].gradients - 4 * sum(map(len, groups))


@given(GROUPS)
def test_stage_0_has_fp32_weights_and_shares_nothing(groups: Groups) -> None:
    parameters = sum(map(sum, groups))
    states = state_bytes(groups, 64, 0, states=(2, 2), weights="fp32")
    assert states == state_bytes(groups, 1, 0, states=(2, 2), weights="bf16")
    assert (states.weights, states.gradients, states.optimizer) == (4 * parameters, 4 * parameters, 8 * parameters)


@given(st.tuples(st.lists(st.integers(1, 50), min_size=1, max_size=12).map(tuple), SIZES), st.integers(1, 40))
def test_the_fullest_rank_of_stage_2_is_found(groups: Groups, ranks: int) -> None:
    """With fp32 weights: looked for among all ranks, tensor by tensor."""
    decayed, free = groups[0], tuple(size % 7 + 1 for size in groups[1])

    def touched(group: tuple[int, ...], rank: int) -> int:
        part = -(-sum(group) // (2 * ranks)) * 2
        ends = list(accumulate(group))
        inside = [end - size < (rank + 1) * part and end > rank * part for end, size in zip(ends, group, strict=True)]
        return sum(size for size, is_inside in zip(group, inside, strict=True) if is_inside)

    most = max(touched(decayed, rank) + touched(free, rank) for rank in range(ranks))
    assert state_bytes((decayed, free), ranks, 2, states=(2, 2), weights="fp32").gradients == 4 * most


def test_small_tensors_stay_whole_under_stage_3() -> None:
    groups = ((1000, 999), (10, 10))
    apart = state_bytes(groups, 4, 3, states=(2, 2), weights="bf16")
    whole = state_bytes(groups, 4, 3, states=(2, 2), weights="bf16", persistent=10)
    assert apart.weights == 2 * (250 + 250 + 3 + 3)
    assert whole.weights - apart.weights == 2 * (12 + 12), "padded as they are gathered"
    assert whole.optimizer == apart.optimizer == 12 * (250 + 250 + 3 + 3)


def test_the_papers_example_is_met_but_for_the_fp32_gradient_sum() -> None:
    """Figure 1 of arXiv 1910.02054: 7.5 billion parameters, 64 ranks, 120, 31.4, 16.6 and 1.9 GB at stages 0 to 3."""
    billions = 7_500_000_000
    paper = {1: 31.4, 2: 16.6, 3: 1.9}
    for stage, gigabytes in paper.items():
        states = state_bytes(((billions,), ()), 64, stage, states=(2, 2), weights="bf16")
        gradient_sum = 2 * billions / (1 if stage == 1 else 64)  # in fp32, what the paper has in 16 bits
        assert (states.total - gradient_sum) / 1e9 == pytest.approx(gigabytes, abs=0.06)


@given(
    vocab=st.integers(1, 1000),
    heads=st.integers(1, 8),
    groups=st.integers(1, 4),
    half_head=st.integers(1, 32),
    inner=st.integers(1, 300),
    layers=st.integers(1, 6),
    tied=st.booleans(),
    qk_norm=st.booleans(),
)
def test_parameters_are_the_sum_of_all_matrices(
    vocab: int, heads: int, groups: int, half_head: int, inner: int, layers: int, tied: bool, qk_norm: bool
) -> None:
    queries, head = heads * groups, 2 * half_head
    hidden = queries * head
    model = ModelSpec(
        name="any",
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=layers,
        num_heads=queries,
        num_kv_heads=heads,
        tie_embeddings=tied,
        qk_norm=qk_norm,
    )
    layer = [(hidden, hidden), (heads * head, hidden), (heads * head, hidden), (hidden, hidden)]
    layer += [(inner, hidden), (inner, hidden), (hidden, inner), (hidden, 1), (hidden, 1)]
    layer += [(head, 1), (head, 1)] if qk_norm else []
    whole = [(vocab, hidden)] * (1 if tied else 2) + [(hidden, 1)] + layer * layers
    assert model.parameters == sum(rows * columns for rows, columns in whole)
    assert model.flops_per_token(1) >= 6 * sum(r * c for r, c in layer * layers if c > 1) + 6 * vocab * hidden


def test_states_of_a_run_follow_its_ranks_and_precision() -> None:
    spec = resolve(["recipe=eu-llm-7b", "factory=lumi", "nodes=2", "parallelism=zero3"])
    assert states_of(spec, "bf16").total == pytest.approx(18 * spec.model.parameters / 16, rel=1e-3)
    assert states_of(spec, "bf16", nodes=4).total == pytest.approx(18 * spec.model.parameters / 32, rel=1e-3)
    assert states_of(spec, "fp32", stage=0).total == 16 * spec.model.parameters
    on_cpu = resolve(["recipe=smoke"])
    assert states_of(on_cpu, "bf16") == states_of(on_cpu, "fp32"), "on CPUs bf16 is autocast over fp32 weights"


def test_ranks_of_one_node_share_its_memory_and_its_devices() -> None:
    def memory(memory_gib: float | None, ranks: int) -> int | None:
        hardware = {"name": "cpu", "title": "A CPU node", "kind": "cpu", "node_memory_gib": memory_gib}
        return memory_per_rank(small_spec(hardware=hardware, launcher={"name": "local", "ranks_per_node": ranks}))

    assert memory(32, 1) == 32 * GIB
    assert memory(32, 4) == 8 * GIB
    assert memory(None, 1) is None
    lumi = resolve(["recipe=smoke", "factory=lumi", "launcher.ranks_per_node=16"])
    assert memory_per_rank(lumi) == 32 * GIB, "two ranks on a device share it"
    assert memory_per_rank(resolve(["recipe=smoke", "factory=lumi", "launcher.ranks_per_node=4"])) == 64 * GIB


@pytest.mark.parametrize(
    ("asked", "kind", "fast", "chosen"),
    [
        ("auto", "cpu", True, "bf16"),
        ("auto", "cpu", False, "fp32"),
        ("auto", "cuda", False, "fp16"),
        ("bf16", "cpu", False, "bf16"),
        ("fp16", "cuda", True, "fp16"),
    ],
)
def test_auto_is_what_the_hardware_is_fast_at(asked: str, kind: str, fast: bool, chosen: str) -> None:
    base = small_spec()
    spec = RunSpec.model_validate(
        base.model_dump()
        | {
            "train": base.train.model_dump() | {"precision": asked},
            "hardware": base.hardware.model_dump() | {"kind": kind, "bf16": fast},
        }
    )
    assert choose_precision(spec) == chosen


def seventy(*strategy: str) -> RunSpec:
    return resolve(["recipe=eu-llm-70b", "factory=marenostrum5", "nodes=64", "train.precision=bf16", *strategy])


def test_axes_of_a_model_share_out_its_states() -> None:
    """On as many ranks a tensor's and a pipeline's share out what ZeRO 1 leaves whole, but for norms."""
    whole = states_of(seventy("parallelism=zero1"), "bf16")
    halved = states_of(seventy("parallelism=tp"), "bf16")
    assert halved.weights == pytest.approx(whole.weights / 2, rel=1e-3)
    assert halved.optimizer == pytest.approx(whole.optimizer, rel=1e-3)
    quarter = states_of(seventy("parallelism=3d"), "bf16")
    assert whole.weights / 4 < quarter.weights < whole.weights / 3, "the last stage has the head besides its layers"


def test_offloaded_states_are_the_nodes() -> None:
    on_device = states_of(seventy("parallelism=zero3"), "bf16")
    optimizer = states_of(seventy("parallelism=zero3", "parallelism.offload_optimizer=cpu"), "bf16")
    assert (optimizer.weights, optimizer.gradients, optimizer.optimizer) == (on_device.weights, on_device.gradients, 0)
    everything = seventy("parallelism=offload3")
    assert (states_of(everything, "bf16").weights, states_of(everything, "bf16").optimizer) == (0, 0)
    assert host_bytes(everything, "bf16") == on_device.weights + on_device.optimizer * 4 // 3
    assert host_bytes(seventy("parallelism=zero3"), "bf16") == 0


def test_of_states_on_a_disk_the_node_has_buffers() -> None:
    spec = seventy("parallelism=nvme", "parallelism.nvme_path=/disk")
    assert states_of(spec, "bf16").optimizer == 0
    assert host_bytes(spec, "bf16") == states_of(seventy("parallelism=zero3"), "bf16").weights + 4 * 4 * 100_000_000
    (told,) = [each for each in estimate(spec, "bf16").assumptions if "on a disk" in each]
    assert told.startswith(f"{16 * spec.model.parameters / 64 / GIB:,.0f} GiB on a disk of each node, in /disk")


def test_a_secondary_copy_is_counted() -> None:
    plain = states_of(seventy("parallelism=zero3"), "bf16")
    copied = states_of(seventy("parallelism=hpz", "parallelism.secondary_group=4"), "bf16")
    assert copied.weights - plain.weights == 2 * seventy().model.parameters // 4


def test_a_shard_group_holds_everything() -> None:
    plain, grouped = (
        states_of(seventy(*words), "bf16")
        for words in (["parallelism=zero3"], ["parallelism=mics", "parallelism.shard_group=64"])
    )
    assert grouped.optimizer == pytest.approx(plain.optimizer * 4, rel=1e-3)
