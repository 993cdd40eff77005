"""`-m` on a site with a scheduler: one job a combination, one question for all, and a table of what became of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiftrain.cli.main import main
from aiftrain.launch.jobs import job_numbers, look_up
from aiftrain.run.folder import RunFolder
from tests.rigs.slurm import SlurmRig, missing_packages
from tests.rigs.training import CONF, Trainings, live_shape, trainings

MISSING = missing_packages()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
RATES = "optimizer.lr=0.001,0.002"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """A controller whose nodes are not there, and a prepared text."""
    with SlurmRig(live_shape(2)) as rig, pytest.MonkeyPatch.context() as patch:
        yield trainings(tmp_path_factory.mktemp("sweeps"), rig, patch)


@pytest.fixture
def job(made: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of a job that waits, in a folder that its run's digest names."""
    monkeypatch.chdir(tmp_path)
    words = [word for word in made.overrides("none") if not word.startswith("run_dir=")]
    return [*words, f"hydra.searchpath=[{CONF}]", "factory=rig", "launcher.extra=['--hold']"]


def runs_told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    runs: list[dict[str, object]] = json.loads(capsys.readouterr().out)["runs"]
    return runs


def test_each_combination_is_a_job_and_a_refused_one_stops_no_other(
    job: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-m", *job, RATES, "model.num_kv_heads=2,3", "--json"]) == 2
    told = capsys.readouterr()
    assert told.err.count("num_kv_heads 3") == 2
    runs = json.loads(told.out)["runs"]
    assert [run["state"] for run in runs] == ["submitted", "refused"] * 2
    for run in runs[::2]:
        assert (run["nodes"], run["node_hours"]) == (1, 1.0)
        assert job_numbers(RunFolder(run["run_dir"])) == [run["job"]]
        assert look_up("slurm", [run["job"]])[0].state == "pending"
    assert main(["status"]) == 0
    assert capsys.readouterr().out.count("pending") == 2


def test_the_table_has_what_is_known_of_each_job(job: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", *job, "optimizer.lr=0.003,0.004", "time=00:45:00"]) == 0
    header, *rows = capsys.readouterr().out.rpartition("\nrun  ")[2].splitlines()
    assert header.split() == ["state", "job", "nodes", "node-hours", "folder"]
    table = [row.split() for row in rows]
    assert [row[0] for row in table] == ["optimizer.lr=0.003", "optimizer.lr=0.004"]
    for _, state, number, nodes, hours, folder in table:
        assert (state, nodes, hours) == ("submitted", "1", "0.75")
        assert job_numbers(RunFolder(folder)) == [number]


def test_all_jobs_together_are_agreed_to_once(
    job: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    large = [*job, RATES, "launcher.confirm_above=1.5"]
    assert main(["-m", *large]) == 2
    assert capsys.readouterr().err.count("not submitted: 2 jobs: up to 2 node-hours, and launcher.confirm_above") == 1
    assert not Path("runs").exists()
    assert main(["-m", *large, "--yes", "--json"]) == 0
    assert [run["state"] for run in runs_told(capsys)] == ["submitted", "submitted"]


def test_combinations_that_are_one_run_are_told_apart_by_folders(
    job: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = [*job, "nodes=1,2", "launcher.ranks_per_node=1"]
    assert main(["-m", *sizes, "--json"]) == 2
    assert [run["state"] for run in runs_told(capsys)] == ["submitted", "refused"]
    assert main(["-m", *sizes, "run_dir=apart/${nodes}-nodes", "--json"]) == 0
    assert [run["run_dir"] for run in runs_told(capsys)] == ["apart/1-nodes", "apart/2-nodes"]


def test_a_dry_run_of_a_sweep_ends_with_the_sum(job: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "--dry-run", "-m", *job, RATES]) == 0
    told = capsys.readouterr().out
    assert told.endswith("\n# 2 jobs: up to 2 node-hours\n")
    assert told.count("\n# Job ") == 2 and "not prepared" not in told
    assert not Path("runs").exists()


def test_a_dry_run_shows_what_slurm_would_refuse(job: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    refused = [*job, "launcher.extra=['--constraint=gold']", "launcher.confirm_above=0"]
    assert main(["launch", "--dry-run", *refused]) == 2
    told = capsys.readouterr().out
    assert "# sbatch refused the job: allocation failure: Invalid feature specification\n" in told
    assert "# it is asked for a yes" in told and "\n#SBATCH --constraint=gold\n" in told
