"""What `plan`, `script` and the tables print: readable at 80 columns, and one JSON document where that is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiftrain.cli.main import main

PLANS = [
    ["plan", "recipe=smoke"],
    ["plan", "recipe=eu-llm-7b", "factory=lumi"],
    ["plan", "-m", "recipe=eu-llm-7b", "factory=lumi", "parallelism=zero1,zero2,zero3"],
]
TABLES = [[*words] for verb in ("factories", "hardware", "storage", "recipes") for words in ([verb],)]
SHOWN = [
    ["factories", "show", "lumi"],
    ["storage", "show", "exoscale"],
    ["hardware", "show", "gb200-nvl4"],
    ["recipes", "show", "smoke"],
]


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("SLURM_CLUSTER_NAME", raising=False)


@pytest.mark.parametrize("words", [*PLANS, *TABLES, *SHOWN], ids=" ".join)
def test_output_fits_80_columns_without_blanks_at_the_ends(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "None" not in told.out
    for line in told.out.splitlines():
        assert len(line) <= 80
        assert line == line.rstrip()


@pytest.mark.parametrize("words", [*PLANS, *TABLES, *SHOWN], ids=" ".join)
def test_json_is_one_document(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--json"]) == 0
    told = capsys.readouterr()
    assert isinstance(json.loads(told.out), dict)
    assert told.err == ""


def test_a_plan_tells_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "recipe=eu-llm-7b", "factory=lumi"])
    out = capsys.readouterr().out
    for phrase in (
        "6.72 billion parameters",
        "4.00 trillion tokens",
        "1,024: 128 nodes x 8",
        "64.0 GiB",
        "zero2, bf16",
    ):
        assert phrase in out
    assert "512 GPU-hours an hour" in out
    for row in ("speed ", "time ", "bill ", "energy ", "AI Act ", "storage "):
        assert f"\n{row}" in out


def test_a_sweep_of_plans_shows_refusals_beside_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-m", "recipe=eu-llm-7b", "factory=lumi", "parallelism=ddp,zero2"]) == 2
    told = capsys.readouterr()
    assert [line.split()[:2] for line in told.out.splitlines()[1:]] == [
        ["parallelism=ddp", "refused"],
        ["parallelism=zero2", "1,024"],
    ]
    assert "100.1 GiB" in told.err


def test_every_shipped_source_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    main(["factories", "show", "lumi"])
    out = " ".join(capsys.readouterr().out.split())
    assert "NCCL_SOCKET_IFNAME hsn0,hsn1,hsn2,hsn3 documented [" in out
    assert "LUMI-training-materials:docs/2day-20260422/201-Slurm.md (read 2026-11-22)" in out
    assert "Not known, or not needed here: pue" in out


def test_a_folder_of_ones_own_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text("# @package _global_\n# My own run.\nseed: 1\n", encoding="utf-8")
    assert main(["recipes", f"hydra.searchpath=[{tmp_path}]"]) == 0
    out = capsys.readouterr().out
    assert "mine My own run" in " ".join(out.split())
    assert "smoke-eu" in out


def test_script_prints_the_job_script_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["script", "recipe=eu-llm-1b", "factory=lumi", "account=project_1", "data.root=/corpus", "nodes=4"]
    assert main(words) == 0
    script = capsys.readouterr().out
    assert script.startswith("#!/bin/bash\n")
    assert "#SBATCH --nodes=4\n" in script
    assert "#SBATCH --account=project_1\n" in script
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["script"] == script
    assert list(tmp_path.iterdir()) == []
