"""Opening a run's folder: the same run goes on, another one is refused with each difference, a finished one is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiftrain.cli.run_folder import begun_with, is_finished, open_run, write_run
from aiftrain.errors import UserError
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.folder import RunFolder, append_line

SMOKE = ["recipe=smoke", "factory=local"]


def _written(tmp_path: Path, *overrides: str) -> RunFolder:
    spec = resolve([*SMOKE, f"run_dir={tmp_path}/run", *overrides])
    folder = open_run(spec)
    write_run(folder, spec, make_plan(spec))
    return folder


def test_what_a_rank_reads_is_written(tmp_path: Path) -> None:
    folder = _written(tmp_path, "seed=4")
    assert folder.read_spec() == resolve([*SMOKE, f"run_dir={tmp_path}/run", "seed=4"])
    assert json.loads(folder.plan_json.read_text())["execution"]["layout"]["world_size"] == 1
    assert json.loads(folder.deepspeed_json.read_text())["train_batch_size"] == 8


def test_the_same_run_goes_on_however_it_is_watched_and_stored(tmp_path: Path) -> None:
    folder = _written(tmp_path)
    for harmless in ("tracking=none", "storage.save_every=7", "train.micro_batch=2", "data.workers=1"):
        again = open_run(resolve([*SMOKE, f"run_dir={tmp_path}/run", harmless]))
        assert again.path == folder.path


def test_another_run_is_refused_with_every_difference(tmp_path: Path) -> None:
    _written(tmp_path)
    spec = resolve([*SMOKE, f"run_dir={tmp_path}/run", "seed=1", "optimizer.lr=0.5", "+data.sources.x={path: a}"])
    with pytest.raises(UserError) as error:
        open_run(spec)
    message = str(error.value)
    assert "holds another run" in message
    assert "seed: was 0, now 1" in message
    assert "optimizer.lr: was 0.001, now 0.5" in message
    assert 'data.sources.x: was "nothing", now {"kind": "text"' in message
    assert "run_dir=" in message


def test_many_differences_are_counted(tmp_path: Path) -> None:
    _written(tmp_path)
    with pytest.raises(UserError, match=r"and \d+ more"):
        open_run(resolve([*SMOKE, f"run_dir={tmp_path}/run", "model=eu-1b", "data=smoke-eu", "train.steps=3"]))


def test_a_folder_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"run\.json has format None"):
        open_run(resolve([*SMOKE, f"run_dir={tmp_path}/run"]))


def test_a_run_keeps_the_precision_that_its_first_start_had(tmp_path: Path) -> None:
    folder = _written(tmp_path, "hardware.bf16=false")
    assert begun_with(folder) is None, "it was never started"
    folder.attempt_logs(1).mkdir(parents=True)
    assert begun_with(folder) == "fp32"
    folder.plan_json.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"plan\.json cannot be read"):
        begun_with(folder)


def test_a_run_is_finished_when_it_ended_well_at_its_last_step_and_that_is_stored(tmp_path: Path) -> None:
    folder = _written(tmp_path)
    spec = folder.read_spec()
    assert not is_finished(folder, spec)
    append_line(folder.events, {"event": "end", "step": spec.timeline.total_steps, "exit_code": 0})
    assert not is_finished(folder, spec), "its last checkpoint is not there"
