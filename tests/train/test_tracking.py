"""The tracker: what it writes, and on which rank."""

from __future__ import annotations

from pathlib import Path

from aiftrain.plan.spec import resolve
from aiftrain.run.folder import RunFolder, read_lines
from aiftrain.run.rank import Rank
from aiftrain.train.tracking import Tracker


def tracker(folder: RunFolder, mode: str, rank: int = 0) -> Tracker:
    spec = resolve(["recipe=smoke", f"tracking={mode}"])
    return Tracker(folder, spec, Rank(rank, 2), attempt=3)


def test_only_rank_0_writes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for rank in (0, 1):
        writer = tracker(folder, "none", rank)
        writer.log(1, loss=2.5)
        writer.event("saved", step=1)
    (record,) = read_lines(folder.metrics)
    assert (record["step"], record["attempt"], record["loss"]) == (1, 3, 2.5)
    (event,) = read_lines(folder.events)
    assert (event["event"], event["attempt"], event["step"]) == ("saved", 3, 1)
