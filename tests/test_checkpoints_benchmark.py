"""The benchmark of saving runs in all its ways, at a size at which its figures say nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.checkpoints import measure, table


@pytest.mark.slow
@pytest.mark.ranks
def test_every_way_saves_the_same_state_and_has_its_figures(tmp_path: Path) -> None:
    result = measure("tiny", 8192, rounds=1, steps=1, threads=1, folder=tmp_path)
    assert all(way["stall"] > 0 and way["steps_beside"] >= 1 for way in result["ways"].values())
    blocking = result["ways"]["aiftrain, blocking"]
    assert blocking["stall"] > result["ways"]["aiftrain"]["stall"], "beside the training it waits for the copy alone"
    weights_and_states = 3 * 4 * result["parameters"]
    for folder in ("background/checkpoints", "blocking/checkpoints", "deepspeed", "dcp", "dcp-async"):
        saved = sum(file.stat().st_size for file in (tmp_path / folder).rglob("*") if file.is_file())
        assert saved == pytest.approx(weights_and_states, rel=0.5), folder
    assert "of DeepSpeed" in table(result)
