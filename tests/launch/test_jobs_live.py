"""Jobs that train on a live Slurm: `cancel`, `status` and `logs -f` of them; sweeps; a folder that is gone."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from aiftrain.cli.main import main
from aiftrain.run.bench import read_bench
from aiftrain.run.folder import RunFolder
from tests.rigs.slurm import SlurmRig
from tests.rigs.training import CONF, LIVE, Trainings, live_shape, losses, trainings

pytestmark = LIVE
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


def test_jobs_of_a_sweep_train_and_the_same_job_by_hand_waits_and_harms_nothing(
    on_rig: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in on_rig.overrides("none") if not word.startswith("run_dir=")]
    words += [f"hydra.searchpath=[{CONF}]", "factory=rig", f"run_dir='{on_rig.folder}/swept-${{optimizer.lr}}'"]
    assert main(["-m", *words, "nodes=1", "launcher.ranks_per_node=1", "optimizer.lr=0.001,0.002", "--json"]) == 0
    jobs = {run["job"]: RunFolder(run["run_dir"]) for run in json.loads(capsys.readouterr().out)["runs"]}
    (first, run), _ = jobs.items()
    by_hand = on_rig.rig.call("sbatch", "--parsable", "job.sh", cwd=run.path).stdout.strip()
    on_rig.until_step(run, 1)
    assert on_rig.rig.job_state(by_hand) == "PENDING" or on_rig.rig.job_state(first) == "COMPLETED"
    for job, folder in jobs.items():
        on_rig.finish(folder, job)
    on_rig.finish(run, by_hand)
    assert main(["status", *(str(folder.path) for folder in jobs.values()), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["runs"]
    assert [(status["state"], status["checkpoint"]) for status in found] == [("finished", 20)] * 2


def test_a_job_whose_folder_is_gone_ends_at_once(on_rig: Trainings, capsys: pytest.CaptureFixture[str]) -> None:
    run, job = on_rig.submit("gone", "nodes=1", "launcher.ranks_per_node=1", "launcher.extra=['--hold']")
    run.path.rename(run.path.with_name("moved"))
    for verb in ("status", "cancel", "logs", "watch"):
        assert main([verb, str(run.path)]) == 2
        assert f"{run.path} is no run folder" in capsys.readouterr().err
    on_rig.rig.call("scontrol", "release", job)
    on_rig.finish(run, job, "FAILED")
    assert not run.path.exists() and not RunFolder(run.path.with_name("moved")).logs.exists()


def test_a_bench_is_a_job_like_any_other(on_rig: Trainings, capsys: pytest.CaptureFixture[str]) -> None:
    run, job = on_rig.submit("bench", "nodes=2", "launcher.ranks_per_node=1", "bench.seconds=2", verb="bench")
    on_rig.finish(run, job)
    bench = read_bench(run)
    assert bench.complete and bench.machine.nodes == 2
    assert {each.scope for each in bench.transfers} == {"across nodes"}
    assert {"ddp", "zero3"} <= {step.strategy for step in bench.steps}
    assert "across nodes" in run.bench_html.read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["bench", "--show", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["machine"]["nodes"] == 2
