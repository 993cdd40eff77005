"""`checkpoints`: a step that was never saved is named."""

from __future__ import annotations

import pytest

from aiftrain.cli.main import main
from aiftrain.run.folder import RunFolder


@pytest.mark.parametrize("action", ["list", "verify", "export"])
def test_a_step_that_is_not_there_is_a_mistake(
    action: str, run_folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["checkpoints", action, str(run_folder.path), "--step", "77"]) == 2
    assert capsys.readouterr().err.startswith("aiftrain: ")
