"""How a rank ends where its folder can no longer be written: with the exit code, and no traceback over the message."""

from __future__ import annotations

import pytest

from aiftrain.run.folder import RunFolder
from aiftrain.run.rank import Rank
from aiftrain.train.process import RankProcess


def test_an_exit_that_cannot_be_written_is_told(run_folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder.logs.write_text("a file stands where the folder should be", encoding="utf-8")
    RankProcess(run_folder, 1, Rank()).end(1, "the disk is full")
    assert "exit.json" in capsys.readouterr().err
