"""The folder for an optimizer's files, on this very node: refused where there is none, no room, no permission."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiftrain.errors import MachineError, UserError
from aiftrain.train.swapping import on_this_node, remove_files


def config(path: object) -> dict[str, Any]:
    return {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "nvme", "nvme_path": str(path)}}}


def test_a_variable_that_the_job_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODE_DISK", raising=False)
    with pytest.raises(UserError, match=r"nvme_path: \$NODE_DISK/x names a variable that this job does not have"):
        on_this_node(config("$NODE_DISK/x"), 0)


def test_a_folder_that_cannot_be_made_is_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="file/x cannot be made on this node"):
        on_this_node(config(tmp_path / "file" / "x"), 0)


def test_too_little_room_is_told_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_DISK", str(tmp_path))
    with pytest.raises(MachineError, match=r"GB free, and this node's ranks need 1,000,000,000\.0"):
        on_this_node(config("$NODE_DISK/x"), 10**18)
    assert (tmp_path / "x").is_dir()


def test_a_rank_removes_its_own_files_alone(tmp_path: Path) -> None:
    for rank in (0, 1):
        (tmp_path / "zero_stage_3" / "optimizer" / f"rank{rank}").mkdir(parents=True)
    remove_files(config(tmp_path), 1)
    assert [folder.name for folder in (tmp_path / "zero_stage_3" / "optimizer").iterdir()] == ["rank0"]
    remove_files({"zero_optimization": {"stage": 3}}, 0)
