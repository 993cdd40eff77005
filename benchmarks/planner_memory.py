"""The planner's memory model against published runs: what ran, what ran out of memory, and what was measured.

    python benchmarks/planner_memory.py [TABLE.csv] [--json] [--fit]

The table (benchmarks/data/memory.csv unless named) has one layout a row with the public source of each. Predicted is
whether it fits in the device; "caught" is the share of layouts that ran out of memory of which that was predicted
(recall), "right" the share of such predictions that were true (precision). Two constants of the Aleph Alpha study's
software are fitted, the bytes of its libraries and what fragmentation adds to all that comes and goes: `--fit` fits
them again, on the layouts whose id has an even CRC-32. Only the others are reported as "unseen". The constants of the
other software are not fitted. Vocabulary (128,000) and global batch of the study follow from its step times and
shares of the peak; habits of the software (bytes of logits and gradients) were chosen with all rows in sight.
"""

from __future__ import annotations

import argparse
import csv
import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from aiftrain.plan.engine_traits import EngineTraits
from aiftrain.plan.memory_use import MemoryUse, memory_use
from aiftrain.plan.published_traits import traits_of
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.model import ModelSpec

GIB = 2**30
TABLE = Path(__file__).parent / "data" / "memory.csv"
FITTED = "Aleph Alpha"
LIBRARIES_GIB = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
FRAGMENTATIONS = tuple(step / 20 for step in range(13))


@dataclass(frozen=True)
class Case:
    """A published layout, and what became of it."""

    name: str
    model: ModelSpec
    layout: ParallelLayout
    sequence_length: int
    traits: EngineTraits
    device_gib: float
    fits: bool
    measured_gib: float | None

    @property
    def unseen(self) -> bool:
        return zlib.crc32(self.name.encode()) % 2 == 1

    def use(self, **constants: Any) -> MemoryUse:
        traits = replace(self.traits, **constants)
        return memory_use(
            self.model, self.layout, sequence_length=self.sequence_length, precision="bf16", traits=traits
        )


@dataclass(frozen=True)
class Score:
    """`right` and `caught` are None where nothing was predicted or nothing happened."""

    layouts: int
    out_of_memory: int
    correct: float
    right: float | None
    caught: float | None


def read(table: Path) -> list[Case]:
    with table.open(newline="", encoding="utf-8") as lines:
        return [_case(row) for row in csv.DictReader(lines)]


def _case(row: dict[str, str]) -> Case:
    return Case(
        name=row["id"],
        model=_model(row),
        layout=_layout(row),
        sequence_length=int(row["seq"]),
        traits=traits_of(row["software"], f"kernel: {row['kernels']}"),
        device_gib=float(row["device_gib"]),
        fits=row["fits"] == "yes",
        measured_gib=float(row["measured_gib"]) if row["measured_gib"] else None,
    )


def _model(row: dict[str, str]) -> ModelSpec:
    return ModelSpec(
        name=row["id"],
        vocab_size=int(row["vocab"]),
        hidden_size=int(row["hidden"]),
        intermediate_size=int(row["ffn"]),
        num_layers=int(row["layers"]),
        num_heads=int(row["heads"]),
        num_kv_heads=int(row["kv_heads"]),
        mlp="swiglu" if row["gated"] == "yes" else "gelu",
    )


def _layout(row: dict[str, str]) -> ParallelLayout:
    data, tensor = int(row["data_parallel"]), int(row["tensor_parallel"])
    pipeline, context = int(row["pipeline_parallel"]), int(row["context_parallel"])
    return ParallelLayout.model_validate(
        {
            "nodes": 1,
            "ranks_per_node": data * tensor * pipeline * context,
            "world_size": data * tensor * pipeline * context,
            "data_parallel": data,
            "zero_stage": int(row["zero"]),
            "micro_batch": int(row["micro_batch"]),
            "accumulation": int(row["accumulation"]),
            "tensor_parallel": tensor,
            "sequence_parallel": row["sequence_parallel"] == "yes",
            "pipeline_parallel": pipeline,
            "virtual_stages": int(row["virtual_stages"]),
            "context_parallel": context,
            "shard_group": int(row["shard_group"]) if row["shard_group"] else None,
            "recompute": row["recompute"],
        }
    )


def score(cases: Iterable[Case], **constants: float) -> Score:
    outcomes = [(case.use(**constants).total > case.device_gib * GIB, not case.fits) for case in cases]
    predicted, happened = (sum(column) for column in zip(*outcomes, strict=True))
    both = sum(said and was for said, was in outcomes)
    return Score(
        layouts=len(outcomes),
        out_of_memory=happened,
        correct=sum(said == was for said, was in outcomes) / len(outcomes),
        right=both / predicted if predicted else None,
        caught=both / happened if happened else None,
    )


def fit(cases: list[Case]) -> dict[str, float]:
    """The two constants with which most layouts are told right; of equals those in the middle."""
    grid = [{"libraries": gib * GIB, "fragmentation": share} for gib, share in product(LIBRARIES_GIB, FRAGMENTATIONS)]
    tried = [(score(cases, **constants).correct, constants) for constants in grid]
    best = max(correct for correct, _ in tried)
    equals = [constants for correct, constants in tried if correct == best]
    return equals[len(equals) // 2]


def evaluate(cases: list[Case], *, refit: bool) -> dict[str, Any]:
    swept = [case for case in cases if case.traits.name == FITTED]
    constants = fit([case for case in swept if not case.unseen]) if refit else {}
    others = sorted({case.traits.name for case in cases} - {FITTED})
    scores = {
        f"{FITTED}, unseen": score((case for case in swept if case.unseen), **constants),
        f"{FITTED}, fitted on": score((case for case in swept if not case.unseen), **constants),
    } | {name: score(case for case in cases if case.traits.name == name) for name in others}
    return {
        "constants": constants,
        "scores": {name: asdict(result) for name, result in scores.items()},
        "measured": [
            {"id": case.name, "measured_gib": case.measured_gib, "predicted_gib": case.use().total / GIB}
            for case in cases
            if case.measured_gib is not None
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", nargs="?", type=Path, default=TABLE)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = evaluate(read(options.table), refit=options.fit)
    print(json.dumps(result, indent=2) if options.json else report(result))


def report(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [f"{'':28}{'layouts':>8}{'ran out':>9}{'correct':>9}{'precision':>11}{'recall':>8}"]
    for name, row in result["scores"].items():
        precision, recall = ("-" if row[key] is None else f"{row[key]:.3f}" for key in ("right", "caught"))
        numbers = f"{row['layouts']:8}{row['out_of_memory']:9}{row['correct']:9.3f}"
        lines.append(f"{name:28}{numbers}{precision:>11}{recall:>8}")
    lines += ["", f"{'':28}{'measured GiB':>14}{'predicted':>11}{'error':>8}"]
    for row in result["measured"]:
        error = row["predicted_gib"] / row["measured_gib"] - 1
        lines.append(f"{row['id']:28}{row['measured_gib']:14.0f}{row['predicted_gib']:11.1f}{error:8.1%}")
    if result["constants"]:
        libraries, fragmentation = result["constants"].values()
        lines.append(f"\nfitted: libraries {libraries / GIB:g} GiB, fragmentation {fragmentation:g}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
