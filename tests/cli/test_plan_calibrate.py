"""`plan --calibrate`: reads runs and benches, keeps what they say, and later plans use it; the rest is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiftrain.cli.main import main
from aiftrain.plan.throughput.own import calibration_for, read
from aiftrain.run.bench import Cases, StepCase
from aiftrain.run.folder import RunFolder, append_line
from aiftrain.run.layout import Execution
from aiftrain.run.spec import RunSpec
from tests.benches import bench, product, step, stream
from tests.plan.throughput.observations import NODE_TFLOPS, layout_of, spec_of

FAST, WARM = 5000.0, 100.0


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "200")
    calibration_for.cache_clear()
    yield
    calibration_for.cache_clear()


def run_folder(path: Path, spec: RunSpec, attempts: int = 1, steps: int = 20) -> RunFolder:
    """A run whose attempts each begin slowly."""
    folder = RunFolder(path)
    folder.write_json(folder.run_json, spec.model_dump(mode="json"))
    layout = layout_of(spec).model_dump(mode="json")
    folder.write_json(folder.plan_json, {"execution": {"layout": layout, "precision": "fp32"}})
    for attempt in range(1, attempts + 1):
        append_line(folder.events, {"event": "start", "attempt": attempt, "matmul_tflops": NODE_TFLOPS})
        for number in range(steps):
            rate = WARM if number < 5 else FAST + number
            append_line(folder.metrics, record((attempt - 1) * steps + number + 1, attempt, rate))
    return folder


def record(step: int, attempt: int, rate: float) -> dict[str, float]:
    return {"step": step, "attempt": attempt, "time": step, "tokens": step, "loss": 1.0, "tokens_per_s": rate}


def test_a_run_is_learned_from_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder(tmp_path / "run", spec_of())
    assert main(["plan", "--calibrate", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert "local, calibrated on 1 run" in told
    assert "0.2 TFLOP/s at fp32" in told
    own = read("local")
    assert own is not None
    assert own.matmul_tflops == {"cpu": {"fp32": NODE_TFLOPS}}


def test_programs_get_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder(tmp_path / "run", spec_of())
    assert main(["plan", "--calibrate", str(tmp_path / "run"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["factory"] == "local"
    assert Path(document["file"]).is_file()
    assert document["runs"] == [str(tmp_path / "run")]


def test_the_first_steps_of_every_attempt_do_not_count(tmp_path: Path) -> None:
    """A quarter of all steps are slow ones of the beginning; the rate is that of the others."""
    run_folder(tmp_path / "one", spec_of())
    run_folder(tmp_path / "restarted", spec_of(), attempts=4)
    assert main(["plan", "--calibrate", str(tmp_path / "one")]) == 0
    first = read("local")
    assert main(["plan", "--calibrate", str(tmp_path / "restarted")]) == 0
    second = read("local")
    assert first is not None
    assert second is not None
    assert first.hardware == second.hardware


def test_a_folder_named_twice_counts_once(tmp_path: Path) -> None:
    folder = str(run_folder(tmp_path / "run", spec_of()).path)
    assert main(["plan", "--calibrate", folder, folder]) == 0
    own = read("local")
    assert own is not None
    assert own.runs == (folder,)


def test_plans_on_this_machine_then_tell_a_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "recipe=smoke", "factory=local", "train.precision=fp32", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["prediction"]["rate"] is None
    run_folder(tmp_path / "run", spec_of())
    assert main(["plan", "--calibrate", str(tmp_path / "run")]) == 0
    calibration_for.cache_clear()
    capsys.readouterr()
    assert main(words) == 0
    rate = json.loads(capsys.readouterr().out)["prediction"]["rate"]
    assert rate["low"] < rate["seconds_per_step"] < rate["high"]
    assert rate["own_runs"] == 1


def bench_folder(path: Path, spec: RunSpec) -> RunFolder:
    """A bench of products, memory and two steps, each as fast as the other."""
    folder = RunFolder(path)
    execution = Execution(layout=layout_of(spec), precision="fp32")
    cases = [StepCase(strategy=name, spec=spec, execution=execution, deepspeed={}) for name in ("ddp", "zero1")]
    folder.write_json(folder.run_json, spec.model_dump(mode="json"))
    folder.write_json(folder.bench_cases, Cases(cases=tuple(cases), missing=()).model_dump(mode="json"))
    products, streams = (product(NODE_TFLOPS, precision="fp32"),), (stream(20.0),)
    steps = (step("ddp", tokens_per_s=FAST), step("zero1", tokens_per_s=FAST))
    result = bench(ranks_per_node=1, products=products, streams=streams, steps=steps)
    folder.write_json(folder.bench_json, result.model_dump(mode="json"))
    return folder


def test_a_bench_is_learned_from_and_plans_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = bench_folder(tmp_path / "bench", spec_of())
    assert main(["plan", "--calibrate", str(folder.path)]) == 0
    told = capsys.readouterr().out
    assert "local, calibrated on 1 bench" in told
    assert "in the place of its profile: 0.2 TFLOP/s at fp32, 20 GB/s of memory" in told
    calibration_for.cache_clear()
    assert main(["plan", "recipe=smoke", "factory=local", "train.precision=fp32"]) == 0
    told = capsys.readouterr().out
    assert "rests on your bench of 2026-11-26" in told and "in the place of the profile's figures" in told


def test_a_bench_and_a_run_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench, run = bench_folder(tmp_path / "bench", spec_of()), run_folder(tmp_path / "run", spec_of())
    assert main(["plan", "--calibrate", str(bench.path), str(run.path)]) == 0
    assert "calibrated on 1 bench and 1 run" in capsys.readouterr().out
    own = read("local")
    assert own is not None
    assert (own.benches, own.runs) == ((str(bench.path),), (str(run.path),))


@pytest.mark.parametrize("spoil", [lambda folder: folder.bench_json, lambda folder: folder.bench_cases])
def test_a_damaged_bench_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: object) -> None:
    folder = bench_folder(tmp_path / "bench", spec_of())
    assert callable(spoil)
    spoil(folder).write_text('{"cases": 1}')
    assert main(["plan", "--calibrate", str(folder.path)]) == 2
    assert "is of another aiftrain, or damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: folder.run_json.unlink(), "is no run folder: it has no run.json"),
        (lambda folder: folder.plan_json.unlink(), "plan.json cannot be read"),
        (lambda folder: folder.plan_json.write_text("{}"), "plan.json cannot be read"),
        (lambda folder: folder.metrics.unlink(), "has 0 of at least 5 steps"),
        (lambda folder: folder.metrics.write_text('{"step": 1, "tokens_per_s": "fast"}\n[]\n{'), "has 0 of at least"),
        (lambda folder: folder.events.unlink(), "train.measure_matmul=true"),
    ],
)
def test_a_folder_that_says_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: object, message: str
) -> None:
    folder = run_folder(tmp_path / "run", spec_of())
    assert callable(spoil)
    spoil(folder)
    assert main(["plan", "--calibrate", str(folder.path)]) == 2
    assert message in capsys.readouterr().err
    assert read("local") is None


def test_a_short_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder(tmp_path / "run", spec_of(), steps=8)
    assert main(["plan", "--calibrate", str(tmp_path / "run")]) == 2
    assert "has 3 of at least 5 steps after the first 5" in capsys.readouterr().err


def test_no_such_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--calibrate", str(tmp_path / "nowhere")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_it_stands_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "recipe=smoke", "--calibrate", str(tmp_path)]) == 2
    assert main(["plan", "--points", "table.csv", "--calibrate", str(tmp_path)]) == 2
    assert "stand alone" in capsys.readouterr().err
