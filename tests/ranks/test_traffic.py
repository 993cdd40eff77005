"""What the planner says a rank hands to collectives in a step, against what passes torch's dispatcher in one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest

from aiftrain.plan.plan import make_plan
from aiftrain.plan.traffic import stage_traffic
from aiftrain.run.folder import RunFolder
from tests.ranks.conftest import Nursery
from tests.ranks.test_resume import BF16_MASTERS

pytestmark = [pytest.mark.ranks, pytest.mark.slow]

NUMBERS = 64  # bytes: of the norm and whether there was an overflow, which the planner leaves out
EXPERTS = "{num_experts: 4, experts_per_token: 2, expert_intermediate_size: 32, shared_intermediate_size: 16}"
LATENT = "+model.latent={query_rank: 24, kv_rank: 16, nope_dim: 8, rope_dim: 4, value_dim: 6}"
PADDED = ("model.vocab_size=401", "model.hidden_size=40", "model.intermediate_size=95", "train.global_batch=12")
LETS_GO = {"stage3_max_reuse_distance": 0, "stage3_max_live_parameters": 0, "stage3_prefetch_bucket_size": 0}
CASES: list[tuple[int, str, tuple[str, ...]]] = [
    (2, "ddp", ()),
    (3, "zero1", PADDED),
    (3, "zero2", PADDED),
    (3, "zero3", PADDED),
    (4, "mics", ("model.qk_norm=true",)),
    (4, "tp", ("parallelism.zero_stage=3", f"model.moe={EXPERTS}", "model.qk_norm=true", "train.recompute=full")),
    (4, "tp", ("parallelism.zero_stage=0", LATENT, "train.precision=bf16")),
    (2, "sp", (f"model.moe={EXPERTS[:-1]}, capacity_factor: 1.5}}", "train.recompute=full")),
    (4, "pp", ("model.tie_embeddings=true", "parallelism.zero_stage=0")),
    (4, "pp", ("model.tie_embeddings=true", "parallelism.sequence=2", "model.num_layers=3")),
    (4, "ep", (f"model.moe={EXPERTS}", "model.mlp_bias=true")),
    (4, "ep", (f"model.moe={EXPERTS}", "parallelism.zero_stage=3", "train.recompute=selective")),
]


@pytest.mark.parametrize(("ranks", "strategy", "options"), CASES)
def test_bytes_are_those_of_a_step(
    nursery: Nursery, new_run: Callable[..., RunFolder], ranks: int, strategy: str, options: tuple[str, ...]
) -> None:
    folder = new_run(f"parallelism={strategy}", *options, ranks=ranks)
    compare(folder, counted(nursery, folder, ranks))


@pytest.mark.parametrize(
    ("ranks", "strategy", "options"),
    [(2, "zero3", ("train.recompute=full",)), (4, "hpz", ("train.global_batch=16", "model.tie_embeddings=false"))],
)
def test_weights_that_are_let_go_are_gathered_again(
    nursery: Nursery, new_run: Callable[..., RunFolder], ranks: int, strategy: str, options: tuple[str, ...]
) -> None:
    folder = new_run(f"parallelism={strategy}", *options, ranks=ranks)
    config = json.loads(folder.deepspeed_json.read_text(encoding="utf-8"))
    config["zero_optimization"] |= LETS_GO
    folder.write_json(folder.deepspeed_json, config)
    compare(folder, counted(nursery, folder, ranks), reuse=0)


def test_on_a_gpu_weights_and_gradients_travel_as_bf16(nursery: Nursery, new_run: Callable[..., RunFolder]) -> None:
    folder = new_run("parallelism=mics", "train.precision=bf16", ranks=4)
    config = json.loads(folder.deepspeed_json.read_text(encoding="utf-8"))
    folder.write_json(folder.deepspeed_json, config | BF16_MASTERS)
    compare(folder, counted(nursery, folder, 4), gpu=True)


def counted(nursery: Nursery, folder: RunFolder, ranks: int) -> list[dict[str, int]]:
    started = nursery.start(folder, ranks, program="tests.ranks.counted_step")
    assert started.wait() == [0] * ranks, started.log()
    return [json.loads((folder.path / f"counted-{rank}.json").read_text(encoding="utf-8")) for rank in range(ranks)]


def compare(folder: RunFolder, seen: list[dict[str, int]], *, gpu: bool = False, reuse: int | None = None) -> None:
    """Stage by stage of a pipeline, the mean over its ranks."""
    spec = folder.read_spec()
    execution = make_plan(spec).execution
    layout = execution.layout
    if gpu:
        spec = spec.model_copy(update={"hardware": spec.hardware.model_copy(update={"kind": "cuda"})})
    for stage in range(layout.pipeline_parallel):
        mine = [counts for rank, counts in enumerate(seen) if layout.place(rank).pipeline == stage]
        sums: Counter[str] = sum((Counter(counts) for counts in mine), Counter())
        found = {"all_reduce": 0.0} | {kind.replace("-", "_"): total / len(mine) for kind, total in sums.items()}
        expected = stage_traffic(spec, layout, execution.precision, stage, reuse=reuse).model_dump()
        assert found.keys() <= expected.keys()
        assert 0 <= found["all_reduce"] - expected["all_reduce"] <= NUMBERS
        assert {kind: found.get(kind, 0) for kind in expected} == expected | {"all_reduce": found["all_reduce"]}
