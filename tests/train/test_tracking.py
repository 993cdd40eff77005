"""The tracker: what it writes, and that wandb is a copy that may fail without harm."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

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


def test_wandb_is_offline_and_its_death_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = RunFolder(tmp_path)
    writer = tracker(folder, "offline")
    writer.log(1, loss=2.5)
    assert any(folder.wandb.glob("offline-run-*"))
    for pid in _services():
        os.kill(pid, signal.SIGKILL)
    for step in range(2, 50):
        writer.log(step, loss=2.5)
    writer.close()
    assert [record["step"] for record in read_lines(folder.metrics)] == list(range(1, 50))
    assert [event["event"] for event in read_lines(folder.events)] == ["wandb lost"]


def _services() -> list[int]:
    """Child processes of this one that are wandb's service."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    found = [int(pid) for pid in children if b"wandb" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert found
    return found
