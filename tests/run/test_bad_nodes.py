"""The team's list of bad nodes: what counts, for how long, and what a person may write into it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aiftrain.errors import MachineError
from aiftrain.run.bad_nodes import KEPT, note_bad_node, read_bad_nodes

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def test_a_node_counts_for_a_week_after_its_newest_line(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "bad nodes" / "lumi.txt"
    assert read_bad_nodes(file, NOW) == []
    note_bad_node(file, "nid2", "two\nlines\tand a tab", NOW - timedelta(days=3))
    note_bad_node(file, "nid1", "old", NOW - KEPT - timedelta(seconds=1))
    assert read_bad_nodes(file, NOW) == ["nid2"]
    note_bad_node(file, "nid1", "again", NOW)
    assert read_bad_nodes(file, NOW) == ["nid1", "nid2"]
    assert read_bad_nodes(file, NOW + timedelta(days=5)) == ["nid1"]
    assert len(file.read_text().splitlines()) == 3, "a reason stays on its line"


def test_people_write_names_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "lumi.txt"
    file.write_text("# ours\n\nnid9\nnid8\tyesterday\n  \n")
    assert read_bad_nodes(file, NOW + timedelta(days=1000)) == ["nid8", "nid9"]


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=f"cannot read {tmp_path}"):
        read_bad_nodes(tmp_path, NOW)
    with pytest.raises(MachineError, match="cannot write"):
        note_bad_node(tmp_path, "nid1", "", NOW)
