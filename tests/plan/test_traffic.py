"""Bytes that a step hands to collectives, by hand. Ranks at work: tests/ranks/test_traffic.py."""

from __future__ import annotations

from typing import Any

import pytest

from aiftrain.plan.gathers import gathers
from aiftrain.plan.traffic import Traffic, stage_traffic, traffic
from aiftrain.run.layout import ParallelLayout, make_layout
from aiftrain.run.spec import RunSpec
from tests.plan.costing import run

TOKENS, HIDDEN, VOCABULARY = 32, 32, 512
PARAMETERS = 2 * VOCABULARY * HIDDEN + 3 * HIDDEN + HIDDEN * (32 + 2 * 16) + HIDDEN * 32 + 3 * HIDDEN * 64
NORMS = 3 * HIDDEN


def of(
    *, precision: str = "fp32", batch: int = 8, stage: int = 0, reuse: int | None = None, **strategy: Any
) -> Traffic:
    spec, layout = laid_out(batch=batch, **strategy)
    return stage_traffic(spec, layout, "bf16" if precision == "bf16" else "fp32", stage, reuse=reuse)


def laid_out(*, batch: int = 8, model: dict[str, Any] | None = None, **strategy: Any) -> tuple[RunSpec, ParallelLayout]:
    """Four ranks, and so two micro-batches of one sequence in a step of data parallelism."""
    spec = run()
    spec = spec.model_copy(
        update={
            "parallelism": spec.parallelism.model_copy(update=strategy),
            "train": spec.train.model_copy(update={"global_batch": batch}),
            "model": spec.model.model_copy(update=model or {}),
        }
    )
    layout = make_layout(spec)
    assert isinstance(layout, ParallelLayout)
    return spec, layout


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (0, Traffic(all_reduce=4 * PARAMETERS)),
        (1, Traffic(all_reduce=4 * PARAMETERS, all_gather=PARAMETERS)),
        (2, Traffic(all_reduce=2 * 4 * PARAMETERS, all_gather=PARAMETERS)),
        (3, Traffic(reduce_scatter=2 * 4 * PARAMETERS, all_gather=2 * (PARAMETERS - NORMS) + NORMS)),
    ],
)
def test_zero_on_four_ranks_in_two_micro_batches(stage: int, expected: Traffic) -> None:
    assert of(zero_stage=stage) == expected


def test_bf16_weights_halve_what_travels() -> None:
    assert of(zero_stage=1, precision="bf16").total * 2 == of(zero_stage=1).total
    assert of(zero_stage=0, precision="bf16") == of(zero_stage=0), "without ZeRO weights and gradients are fp32"


def test_weights_that_are_let_go_are_gathered_twice() -> None:
    once, twice = of(zero_stage=3), of(zero_stage=3, reuse=0)
    assert twice.all_gather - NORMS == 2 * (once.all_gather - NORMS)
    spec, layout = laid_out(zero_stage=3)
    all_but_head = (PARAMETERS - NORMS - VOCABULARY * HIDDEN) // 4
    assert gathers(spec.model, layout, 2 * HIDDEN, reuse=1) == ((PARAMETERS - NORMS) // 4, all_but_head)


def test_groups_of_stage_3() -> None:
    grouped = of(zero_stage=3, shard_group=2)
    assert grouped.all_reduce == 4 * PARAMETERS // 2, "this rank's part, over the two groups"
    assert grouped.all_gather == 2 * of(zero_stage=3).all_gather
    near = of(zero_stage=3, secondary_group=2)
    assert near.all_gather == NORMS + (PARAMETERS - NORMS) * (1 + 2), "the second time from half of the ranks"


def test_the_ranks_of_a_tensor_add_up_hidden_states() -> None:
    states = 4 * TOKENS * HIDDEN
    found = of(zero_stage=1, tensor=2, batch=2, model={"num_kv_heads": 2, "tie_embeddings": True})
    own = (PARAMETERS + HIDDEN * 32 - VOCABULARY * HIDDEN - NORMS) // 2 + NORMS
    assert found.all_reduce == 4 * own + (4 + 2) * states
    assert found.all_gather == 4 * own // 2 + 2 * 4 * TOKENS


def test_a_sequence_is_exchanged_around_attention() -> None:
    heads = (2 + 2 + 2 + 2) * 16  # queries; keys and values of one head, repeated; the result
    found = of(zero_stage=0, sequence=2, batch=2)
    assert found.all_to_all == 4 * TOKENS // 2 * heads * 2


def test_stages_send_states_one_way_and_gradients_the_other() -> None:
    layers = {"num_layers": 4, "tie_embeddings": True}
    sent = [of(zero_stage=0, pipeline=4, batch=3, model=layers, stage=stage).send for stage in range(4)]
    states, table = 3 * 4 * TOKENS * HIDDEN, 4 * VOCABULARY * HIDDEN
    assert sent == [states + table, 2 * states, 2 * states, states + table]
    spec, layout = laid_out(zero_stage=0, pipeline=4, batch=3, model=layers)
    assert traffic(spec, layout, "fp32").send == max(sent)
