"""Parameters and model states: the formulas against counting by hand, and against what must hold for any numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiftrain.plan.memory import GIB, choose_precision, memory_per_rank, state_bytes, states_of
from aiftrain.plan.spec import resolve
from aiftrain.run.model import ModelSpec
from aiftrain.run.spec import RunSpec
from tests.conftest import small_spec

PARAMETERS = st.integers(1, 10**12)
RANKS = st.integers(1, 10_000)
STAGES = st.integers(0, 3)


@given(PARAMETERS, RANKS, st.booleans())
def test_a_higher_stage_never_takes_more_than_the_one_below(parameters: int, ranks: int, bf16: bool) -> None:
    totals = [state_bytes(parameters, ranks, stage, bf16_weights=bf16).total for stage in (1, 2, 3)]
    assert totals == sorted(totals, reverse=True)


@given(PARAMETERS, RANKS, STAGES, st.booleans())
def test_all_ranks_together_hold_everything_once_or_often(parameters: int, ranks: int, stage: int, bf16: bool) -> None:
    whole = state_bytes(parameters, 1, stage, bf16_weights=bf16)
    each = state_bytes(parameters, ranks, stage, bf16_weights=bf16)
    for name, from_stage in (("weights", 3), ("gradients", 2), ("optimizer", 1)):
        together = getattr(each, name) * ranks
        if stage >= from_stage:
            assert 0 <= together - getattr(whole, name) < ranks, "shared out, rounded up by less than a byte a rank"
        else:
            assert together == getattr(whole, name) * ranks


@given(PARAMETERS, st.booleans())
def test_stage_0_is_what_one_rank_holds(parameters: int, bf16: bool) -> None:
    each = state_bytes(parameters, 64, 0, bf16_weights=bf16)
    assert each == state_bytes(parameters, 1, 0, bf16_weights=bf16)
    assert each.total == parameters * (20 if bf16 else 16)


def test_the_papers_example_is_met_but_for_the_fp32_gradient_sum() -> None:
    """Figure 1 of arXiv 1910.02054: 7.5 billion parameters, 64 ranks, 120, 31.4, 16.6 and 1.9 GB at stages 0 to 3."""
    billions = 7_500_000_000
    paper = {1: 31.4, 2: 16.6, 3: 1.9}
    for stage, gigabytes in paper.items():
        states = state_bytes(billions, 64, stage, bf16_weights=True)
        gradient_sum = 4 * billions / (64 if stage >= 2 else 1)
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
    assert states_of(spec, "bf16").total == pytest.approx(20 * spec.model.parameters / 16, rel=1e-6)
    assert states_of(spec, "bf16", nodes=4).total == pytest.approx(20 * spec.model.parameters / 32, rel=1e-6)
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
    ("asked", "fast", "chosen"), [("auto", True, "bf16"), ("auto", False, "fp32"), ("bf16", False, "bf16")]
)
def test_auto_is_bf16_where_the_hardware_is_fast_at_it(asked: str, fast: bool, chosen: str) -> None:
    base = small_spec()
    spec = RunSpec.model_validate(
        base.model_dump()
        | {
            "train": base.train.model_dump() | {"precision": asked},
            "hardware": base.hardware.model_dump() | {"bf16": fast},
        }
    )
    assert choose_precision(spec) == chosen
