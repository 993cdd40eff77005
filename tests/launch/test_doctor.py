"""The doctor: what it looks at, and that each complaint can be provoked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiftrain.launch.doctor import Check, examine
from aiftrain.run.lock import RunLock
from tests.conftest import small_spec

GPU = {"name": "h100", "title": "H100", "kind": "cuda"}


def examined(tmp_path: Path, environ: dict[str, str] | None = None, **changes: Any) -> dict[str, Check]:
    spec = small_spec(**({"run_dir": str(tmp_path / "run")} | changes))
    return {check.name: check for check in examine(spec, environ or {})}


def test_this_machine_can_train_a_small_model(tmp_path: Path) -> None:
    checks = examined(tmp_path)
    assert {name for name, check in checks.items() if check.state == "fail"} == set()
    assert not (tmp_path / "run").exists()


def test_every_complaint_comes_with_advice(tmp_path: Path) -> None:
    environ = {"WANDB_API_KEY": "secret", "https_proxy": "http://proxy", "HF_TOKEN": "secret"}
    checks = examined(tmp_path, environ, hardware=GPU, launcher={"name": "slurm"})
    assert all(check.advice for check in checks.values() if check.state != "ok")
    assert not any("secret" in check.found for check in checks.values())
    assert checks["tracking and hubs"].found == "WANDB_API_KEY, HF_TOKEN"
    assert checks["proxies"].state == "warn"


def test_missing_gpus_and_schedulers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert examined(tmp_path, launcher={"name": "slurm"})["scheduler"].state == "fail"
    if not list(Path("/dev").glob("nvidia[0-9]*")):
        assert examined(tmp_path, hardware=GPU)["accelerators"].state == "fail"
        assert examined(tmp_path, hardware=GPU, launcher={"name": "slurm"})["accelerators"].state == "ok"


def test_a_model_larger_than_the_disk(tmp_path: Path) -> None:
    model = small_spec().model.model_dump() | {"vocab_size": 10**12}
    assert examined(tmp_path, model=model)["checkpoint space"].state == "warn"


def test_a_run_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    checks = examined(tmp_path, run_dir=str(tmp_path / "file" / "run"))
    assert checks["run folder"].state == "fail"


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    lock = RunLock(tmp_path / "run" / "lock")
    lock.acquire()
    assert examined(tmp_path)["lock"].state == "fail"
    lock.release()
    assert examined(tmp_path)["lock"].state == "ok"


def test_inside_an_allocation(tmp_path: Path) -> None:
    assert "4711" in examined(tmp_path, {"SLURM_JOB_ID": "4711"})["allocation"].found
