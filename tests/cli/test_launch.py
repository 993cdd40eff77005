"""What a launch does before anything trains: where it stops, what it says, and that a sweep goes through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiftrain.cli.main import main

SMOKE = ["recipe=smoke", "factory=local"]
NO_CORPUS = ["~data.sources.python-docs", "~data.sources.python-source", "+data.sources.x={path: nowhere}"]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_missing_corpus_is_told_and_leaves_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMOKE, *NO_CORPUS]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not Path("runs/smoke").exists()


def test_a_job_wants_its_data_prepared_before_the_queue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("Ein Satz.\n", encoding="utf-8")
    words = ["recipe=smoke", "factory=lumi", "account=a", "train.micro_batch=1", *NO_CORPUS[:2]]
    words += ["+data.sources.x={path: text.txt}"]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert "python -m aiftrain data prepare recipe=smoke factory=lumi" in message
    assert "'+data.sources.x={path: text.txt}'" in message, "the command can be pasted into a shell"


def test_a_sweep_goes_through_all_its_runs_and_ends_with_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", *SMOKE, *NO_CORPUS, "seed=1,2", "optimizer.lr=0.1"]) == 2
    told = capsys.readouterr()
    assert told.err.count("nowhere") == 2
    assert "run 1 of 2: seed=1\n" in told.out
    table = told.out.split("state\n")[-1].splitlines()
    assert [line.split() for line in table] == [["seed=1", "refused"], ["seed=2", "refused"]]


def test_a_sweep_with_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", *SMOKE, *NO_CORPUS, "seed=range(1,4)", "--json"]) == 2
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [(run["overrides"], run["exit_code"]) for run in runs] == [([f"seed={seed}"], 2) for seed in (1, 2, 3)]


def test_a_mistake_in_one_run_of_a_sweep_is_told_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", *SMOKE, *NO_CORPUS, "model.num_kv_heads=3,2"]) == 2
    told = capsys.readouterr()
    assert "num_kv_heads 3" in told.err
    assert "nowhere" in told.err


LARGE = ["recipe=eu-llm-1b", "factory=lumi", "account=project_465000001", "data.root=/corpus"]


def test_a_dry_run_shows_the_command_and_the_script_and_touches_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*LARGE, "nodes=8", "time=1-00:00:00", "factory.container.image=docker://image"]
    assert main(["launch", "--dry-run", *words]) == 0
    told = capsys.readouterr().out
    assert told.startswith("# 8 nodes for 1-00:00:00: up to 192 node-hours, 768 GPU-hours of project_465000001\n")
    assert "&& sbatch --parsable job.sh\n" in told
    assert "\n#SBATCH --nodes=8\n" in told
    assert not list(Path().iterdir())


def test_a_dry_run_refuses_what_a_launch_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "--dry-run", *LARGE]) == 2
    assert "factory.container.image: there is no /appl/local" in capsys.readouterr().err


def test_a_dry_run_of_a_sweep_shows_each_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "--dry-run", "--json", "-m", *SMOKE, "seed=1,2"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert len({run["run_dir"] for run in runs}) == 2
    assert all(run["command"] == ["bash", "job.sh"] for run in runs)


def test_a_large_job_is_not_submitted_without_a_yes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("Ein Satz.\n" * 400, encoding="utf-8")
    job = ["recipe=smoke", "factory=lumi", "account=project_465000001", "nodes=4", "train.micro_batch=1"]
    job += [*NO_CORPUS[:2], "+data.sources.x={path: text.txt}", "factory.container.image=docker://image"]
    job += ["data.cache_dir=cache", "train.global_batch=32"]
    assert main(["data", "prepare", *job]) == 0
    monkeypatch.setenv("PATH", "")
    assert main(job) == 2
    assert "not submitted: 4 nodes for 2-00:00:00: up to 192 node-hours" in capsys.readouterr().err
    assert not Path("runs").exists()
    assert main([*job, "--yes"]) == 2
    assert "there is no sbatch here" in capsys.readouterr().err
