"""`env`: what is shown and written, and what is said where something is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiftrain.cli.main import main
from aiftrain.run.folder import RunFolder


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code = main(["env", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_lock_is_written_and_another_environment_differs(
    run_folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(run_folder.path)
    assert answer(capsys, "lock", run)[1]["changes"] == []
    assert answer(capsys, "diff", run) == (0, {"run": run, "differences": []})
    document = json.loads(run_folder.env_lock.read_text())
    numpy = document["software"]["packages"]["numpy"]
    document["software"]["packages"]["numpy"] = "1.0"
    run_folder.write_json(run_folder.env_lock, document)
    code, found = answer(capsys, "diff", run)
    assert (code, found["differences"]) == (1, [f"numpy: locked 1.0, here {numpy}"])
    assert main(["env", "lock", run]) == 0
    shown = capsys.readouterr().out
    assert f"accepted: numpy: locked 1.0, here {numpy}" in shown and "packages  " in shown


def test_two_runs_are_compared(run_folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = RunFolder(tmp_path / "other")
    answer(capsys, "lock", str(run_folder.path))
    document = json.loads(run_folder.env_lock.read_text())
    document["software"]["packages"] = {}
    other.write_json(other.env_lock, document)
    code, found = answer(capsys, "diff", str(other.path), str(run_folder.path))
    assert code == 1 and any(line.startswith("numpy: locked none, here ") for line in found["differences"])


def test_what_ranks_found_can_be_locked_where_only_nodes_run_it(
    run_folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["env", "lock", "--as-started", str(run_folder.path)]) == 2
    assert "has said yet what it runs with" in capsys.readouterr().err
    answer(capsys, "lock", str(run_folder.path))
    there = json.loads(run_folder.env_lock.read_text())["software"] | {"machine": "aarch64"}
    run_folder.write_json(run_folder.environment(1), there)
    _, found = answer(capsys, "lock", "--as-started", str(run_folder.path))
    assert found["software"] == there and found["changes"][0].endswith("here aarch64")


def test_a_pack_says_what_it_needs_from_outside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    venv, archive = tmp_path / "venv", tmp_path / "env.tar"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    code, found = answer(capsys, "pack", str(archive), "--venv", str(venv))
    assert code == 0 and found["bytes"] == archive.stat().st_size
    assert found["needs"][0].startswith("its Python is that of ")
    assert main(["env", "pack", str(archive), "--venv", str(tmp_path)]) == 2
    assert "is no virtual environment" in capsys.readouterr().err


def test_what_is_missing_is_said(run_folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["lock"], "env lock of what?"),
        (["diff", str(run_folder.path)], f"has no lock: python -m aiftrain env lock {run_folder.path} writes one"),
        (["lock", str(run_folder.path / "none")], "is no run folder"),
    ):
        assert main(["env", *words]) == 2
        assert said in capsys.readouterr().err
