"""Jobs that train on a live Slurm: `cancel`, `status` and `logs -f` of them, and what becomes of one that hangs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from aiftrain.cli.main import main
from tests.rigs.slurm import SlurmRig, missing_packages
from tests.rigs.training import Trainings, live_shape, losses, trainings

MISSING = missing_packages()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.ranks,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
    pytest.mark.skipif(os.getuid() != 0, reason="nodes in namespaces of their own need root"),
]
LONG = ["nodes=2", "launcher.ranks_per_node=1", "train.steps=4000", "train.evaluate_every=0"]


@pytest.fixture(scope="module")
def on_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    with SlurmRig(live_shape(2), live=True) as rig, pytest.MonkeyPatch.context() as patch:
        yield trainings(tmp_path_factory.mktemp("jobs"), rig, patch)


def test_a_job_that_trains_saves_and_leaves_and_stays_away(
    on_rig: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    run, job = on_rig.submit("cancelled", *LONG)
    on_rig.until_step(run, 3)
    capsys.readouterr()
    assert main(["status", str(run.path), "--json"]) == 0
    [status] = json.loads(capsys.readouterr().out)["runs"]
    assert (status["state"], status["job"], status["nodes"]) == ("running", job, "node[1-2]")
    assert status["step"] >= 3 and status["seconds_left"] > 0
    assert main(["cancel", str(run.path)]) == 0
    assert main(["logs", str(run.path), "-f"]) == 0
    assert "end: step" in capsys.readouterr().out
    on_rig.finish(run, job, "FAILED")
    assert on_rig.rig.job_exit_code(job) == 75
    assert main(["status", str(run.path), "--json"]) == 0
    [status] = json.loads(capsys.readouterr().out)["runs"]
    assert status["state"] == "stopped early"
    assert status["checkpoint"] == max(losses(run)) < 4000


def test_now_ends_a_job_at_once(on_rig: Trainings) -> None:
    run, job = on_rig.submit("killed", *LONG)
    on_rig.until_step(run, 1)
    assert main(["cancel", str(run.path), "--now"]) == 0
    on_rig.finish(run, job, "CANCELLED")
