"""The ranks' environment: threads shared out, nothing that phones home, this very package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import aiftrain
from aiftrain.launch.environment import local_environment, run_environment
from tests.conftest import small_execution, small_spec


@pytest.mark.parametrize(("cores", "ranks", "threads"), [(2, 2, "1"), (8, 2, "4"), (7, 2, "3"), (1, 4, "1")])
def test_threads_are_shared_out(cores: int, ranks: int, threads: str) -> None:
    environment = local_environment(small_spec(), small_execution(ranks).layout, 3, cores, {})
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == threads
    assert environment["AIFTRAIN_ATTEMPT"] == "3"


def test_ours_win_over_what_was_there() -> None:
    loose = {"WANDB_MODE": "online", "HF_HUB_OFFLINE": "0", "DO_NOT_TRACK": "0", "HOME": "/h"}
    environment = local_environment(small_spec(), small_execution().layout, 1, 2, loose)
    assert environment["WANDB_MODE"] == "disabled"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["DO_NOT_TRACK"] == "true"
    assert environment["HOME"] == "/h"


def test_online_tracking_goes_to_the_server_that_was_named() -> None:
    tracking = {"name": "online", "wandb": "online", "base_url": "https://wandb.example.eu"}
    environment = run_environment(small_spec(tracking=tracking))
    assert (environment["WANDB_MODE"], environment["WANDB_BASE_URL"]) == ("online", "https://wandb.example.eu")


def test_deepspeed_is_told_that_there_is_no_gpu() -> None:
    gpu = {"name": "h100", "title": "H100", "kind": "cuda"}
    assert run_environment(small_spec())["DS_ACCELERATOR"] == "cpu"
    assert "DS_ACCELERATOR" not in run_environment(small_spec(hardware=gpu))


def test_the_compiler_is_loaded_only_where_it_is_used() -> None:
    spec = small_spec()
    compiled = spec.model_copy(update={"train": spec.train.model_copy(update={"compile": True})})
    assert run_environment(spec)["TORCHDYNAMO_DISABLE"] == "1"
    assert "TORCHDYNAMO_DISABLE" not in run_environment(compiled)


def test_ranks_import_this_package_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "aiftrain").mkdir()
    (tmp_path / "aiftrain" / "__init__.py").write_text("raise SystemExit('the wrong package')")
    environment = local_environment(small_spec(), small_execution().layout, 1, 2, {})
    program = "import aiftrain; print(aiftrain.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert found.stdout.strip() == aiftrain.__file__
