"""`profile RUN`: the table of a run's recorded steps; and the steps that cannot be recorded."""

from __future__ import annotations

import json

import pytest

from aiftrain.cli.main import main
from aiftrain.run.folder import RunFolder
from aiftrain.run.profile import MEANINGS, Profile, RankTimes


@pytest.fixture
def profiled(run_folder: RunFolder) -> RunFolder:
    """Two ranks, two steps: the second waits for the first."""
    parts = dict.fromkeys(MEANINGS, 0.0)
    ranks = (
        RankTimes(rank=0, wall=2.0, parts=parts | {"compute": 1.9, "communication": 0.1}, hidden_communication=0.2),
        RankTimes(
            rank=1,
            wall=2.0,
            parts=parts | {"compute": 1.5, "communication": 0.1, "waiting": 0.4},
            hidden_communication=0.2,
        ),
    )
    profile = Profile(attempt=1, first=4, last=5, device="cpu", compared=True, traces=("rank-00000.gz",), ranks=ranks)
    run_folder.write_json(run_folder.profile_json, profile.model_dump(mode="json"))
    return run_folder


def test_the_table_has_every_part(profiled: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(profiled.path)]) == 0
    told = capsys.readouterr().out
    assert "steps 4 to 5, 2 ranks, milliseconds a step" in told
    rows = {words[0]: words[1:5] for line in told.splitlines() if len(words := line.split()) > 5}
    assert rows["compute"] == ["850.0", "85.0%", "750.0", "950.0"]
    assert rows["waiting"][:2] == ["100.0", "10.0%"]
    assert rows["all"][0] == "1,000.0"
    assert "least on rank 0" in told and "100.0 ms a step of communication" in told


def test_programs_get_one_document(profiled: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(profiled.path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ranks"][1]["parts"]["waiting"] == 0.4


def test_a_run_without_one_says_how(run_folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(run_folder.path)]) == 2
    assert "train with profile=true" in capsys.readouterr().err


@pytest.mark.parametrize("steps", ["[0,2]", "[5,4]", "[300,400]", "[1,21]"])
def test_steps_that_do_not_come_are_refused(steps: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["recipe=smoke", "factory=local", f"profile_steps={steps}"]
    assert main(["plan", *words, "profile=true"]) == 2
    assert "the first and the last of at most 20" in capsys.readouterr().err
    assert main(["plan", *words]) == 0
