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
    table = told.out.split("folder\n")[-1].splitlines()
    assert [line.split() for line in table] == [["seed=1", "failed"], ["seed=2", "failed"]]


def test_a_sweep_with_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", *SMOKE, *NO_CORPUS, "seed=range(1,4)", "--json"]) == 2
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [(run["overrides"], run["exit_code"]) for run in runs] == [([f"seed={seed}"], 2) for seed in (1, 2, 3)]


def test_a_mistake_in_one_run_of_a_sweep_is_told_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", *SMOKE, *NO_CORPUS, "model.num_kv_heads=3,2"]) == 2
    told = capsys.readouterr()
    assert "num_kv_heads 3" in told.err
    assert "nowhere" in told.err
