"""Model states: the formulas against what DeepSpeed allocates on gloo ranks, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from aiftrain.plan.engine_config import HALF_WEIGHTS
from aiftrain.plan.memory import persistent_elements, state_bytes
from aiftrain.plan.parameters import tensor_sizes
from aiftrain.run.folder import RunFolder
from aiftrain.run.precision import Precision
from tests.ranks.conftest import Nursery

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]

ODD_SIZES = (  # so that every group and tensor needs padding
    "model.vocab_size=401",
    "model.hidden_size=34",
    "model.intermediate_size=97",
    "model.num_layers=3",
    "model.num_heads=1",
    "model.num_kv_heads=1",
    "model.qk_norm=true",
)


@pytest.mark.parametrize(
    ("stage", "weights", "ranks", "optimizer"),
    [
        (0, "fp32", 2, "optimizer=ademamix"),
        (1, "fp32", 2, "optimizer=muon"),
        (2, "fp32", 2, "optimizer.ema_decay=0.9"),
        (3, "fp32", 2, "optimizer=ademamix"),
        (1, "bf16", 2, "optimizer=ademamix"),
        (2, "bf16", 2, "optimizer=adamw"),
        (3, "bf16", 4, "optimizer=muon"),
        *(
            pytest.param(stage, weights, 4, "optimizer=adamw", marks=pytest.mark.slow)
            for stage, weights in (
                (1, "fp32"),
                (2, "fp32"),
                (3, "fp32"),
                (1, "bf16"),
                (2, "bf16"),
                (1, "fp16"),
                (2, "fp16"),
                (3, "fp16"),
            )
        ),
    ],
)
def test_the_fullest_rank_holds_what_was_predicted(
    nursery: Nursery, new_run: NewRun, stage: int, weights: Precision, ranks: int, optimizer: str
) -> None:
    strategy = f"zero{stage}" if stage else "ddp"
    two = ("train.micro_batch=1", f"train.global_batch={2 * ranks}")  # gradients lie between micro-batches
    small = ("parallelism.bucket_millions=0.02", *two, *ODD_SIZES)
    folder = new_run(f"parallelism={strategy}", optimizer, *small, ranks=ranks)
    if weights != "fp32":
        config = json.loads(folder.deepspeed_json.read_text(encoding="utf-8"))
        folder.write_json(folder.deepspeed_json, config | HALF_WEIGHTS[weights])
    started = nursery.start(folder, ranks, program="tests.ranks.held_states")
    assert started.wait() == [0] * ranks, started.log()
    held = [json.loads((folder.path / f"held-{rank}.json").read_text(encoding="utf-8")) for rank in range(ranks)]
    spec = folder.read_spec()
    groups = spec.optimizer.groups
    predicted = state_bytes(
        tensor_sizes(spec.model, groups),
        ranks,
        stage,
        states=tuple(len(group.states) for group in groups),
        weights=weights,
        persistent=persistent_elements(spec.model),
    )
    tolerance = 1e-4 if (stage, weights) == (1, "fp16") else 0.0  # DeepSpeed pads these gradients less
    assert max(held, key=lambda rank: sum(rank.values())) == pytest.approx(predicted.model_dump(), rel=tolerance)
