"""`bench` as typed: what it refuses, and what it shows of a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiftrain.cli.main import main
from aiftrain.run.folder import RunFolder
from tests.benches import bench, product, step, stream, transfer


@pytest.fixture
def measured(run_folder: RunFolder) -> RunFolder:
    links = (transfer("all-reduce", gb_per_s=2.0, us=200.0),)
    figures = bench(products=(product(0.5),), streams=(stream(9.0),), transfers=links, steps=(step(precision="bf16"),))
    run_folder.write_json(run_folder.bench_json, figures.model_dump(mode="json"))
    return run_folder


def test_a_folder_is_shown_and_its_page_drawn(measured: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--show", str(measured.path)]) == 0
    told = capsys.readouterr().out
    for words in ("0.5 TFLOP/s a rank", "9 GB/s a rank", "200 us", "zero1", "stopped before the end", "--calibrate"):
        assert words in told
    assert measured.bench_html.is_file()


def test_programs_get_one_document(measured: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--show", str(measured.path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["products"][0]["tflops"] == 0.5
    assert document["page"] == str(measured.bench_html)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--show", "nowhere"], "nowhere has no measurements"),
        (["--show", "x", "nodes=2"], "stands alone"),
        (["--cfg", "job"], "bench has no --cfg"),
        (["factory=local", "bench.second=3"], "did you mean bench.seconds"),
        (["factory=local", "bench.seconds=0"], "greater than 0"),
        (["factory=local", "nodes=2"], "launcher=local starts ranks on this machine only"),
    ],
)
def test_what_it_refuses(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_training_run_keeps_its_folder(run_folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = run_folder.run_json.read_bytes()
    assert main(["bench", "factory=local", f"run_dir='{run_folder.path}'"]) == 2
    assert "holds a training run" in capsys.readouterr().err
    assert run_folder.run_json.read_bytes() == before


def test_another_bench_may_take_the_place_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiftrain.cli.bench import write_bench
    from aiftrain.plan.bench import bench_spec

    for seconds in (1, 2):
        spec, cases = bench_spec(["factory=local", f"bench.seconds={seconds}"], str(tmp_path / "bench"))
        write_bench(RunFolder(spec.run_folder), spec, cases)
    assert RunFolder(tmp_path / "bench").read_spec().bench.seconds == 2
