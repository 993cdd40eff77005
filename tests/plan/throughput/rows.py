"""What the tests of tables share: one published run as a row, to change cell by cell."""

from __future__ import annotations

from typing import Any

ROW = {
    "id": "one",
    "hardware": "A100-80GB SXM",
    "gpus": "64",
    "model": "GPT 2.7B",
    "layers": "32",
    "hidden": "2560",
    "heads": "32",
    "vocab": "51200",
    "seq": "2048",
    "global_batch": "512",
    "micro_batch": "4",
    "precision": "bf16",
    "tp": "2",
    "pp": "2",
    "recompute": "none",
    "software": "Megatron-LM",
}


def row(**cells: Any) -> dict[str, str]:
    """The row with other cells; None empties one."""
    return ROW | {key: "" if value is None else str(value) for key, value in cells.items()}
