"""The tracker: what it writes, and on which rank."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from aiftrain.plan.spec import resolve
from aiftrain.run import quiet
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


def test_wandb_has_both_curves_where_a_run_went_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in quiet.VARIABLES.items():
        monkeypatch.setenv(name, value)
    folder = RunFolder(tmp_path)
    writer = tracker(folder, "offline")
    for step, loss in [(10, 4.0), (20, 3.0), (30, 9.0), (20, 2.5), (30, 2.0)]:
        writer.log(step, loss=loss, sources={"en": step})
        writer.log(step, validation={"en": loss})
    writer.close()
    [file] = folder.wandb.glob("offline-run-*/*.wandb")
    deadline = time.monotonic() + 30  # a process of wandb's writes the file, on a busy machine after `finish` too
    while len(rows := list(wandb_rows(file))) < 10 and time.monotonic() < deadline:
        time.sleep(0.1)
    passes = [(row["step"], row["pass"], row["loss"]) for row in rows if "loss" in row]
    assert passes == [(10, 1, 4.0), (20, 1, 3.0), (30, 1, 9.0), (20, 2, 2.5), (30, 2, 2.0)]
    assert [row["validation/en"] for row in rows if "validation/en" in row] == [4.0, 3.0, 9.0, 2.5, 2.0]
    assert {row["attempt"] for row in rows} == {3}
    own = [row["_step"] for row in rows]
    assert own == sorted(set(own)), "what does not grow is dropped"


def wandb_rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of history in wandb's own file: a log as LevelDB has it, in blocks of 32 KiB, of protobuf records."""
    of_wandb = import_module("wandb.proto.wandb_internal_pb2").Record
    content, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 2**15 - at % 2**15 < 7:
            at += 2**15 - at % 2**15
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last of its pieces
            items = of_wandb.FromString(record).history.item
            record = b""
            if items:
                yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
